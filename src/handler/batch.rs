//! Many jobs of one task at once, each with an outcome of its own.

use std::borrow::Cow;

use serde_json::Value;

use super::context::{Context, Now};
use super::sql::{self, Named, SqlError};
use super::{Attempt, Halt, Handlers, Run, probe};
use crate::clock;
use crate::config::{MultiRow, RenderError, SqlStep, Statement, Step};
use crate::job::{Args, Outcome};

impl Handlers {
    /// The outcomes of attempts at jobs of one task, in their order. Handlers that do not take many at once do them one
    /// by one.
    ///
    /// Dropping the future stops what it started, as with [`Handlers::perform`].
    pub(crate) async fn perform_batch(&self, attempts: &[Attempt<'_>]) -> Vec<Outcome> {
        let now = Now::new(clock::now());
        let mut contexts: Vec<Context<'_>> =
            attempts.iter().map(|attempt| Context::new(attempt, &self.vars, &now)).collect();
        let results = match attempts.first().map(|attempt| attempt.task.steps.as_slice()) {
            Some([Step::Sql(step)]) => match many_rows(step) {
                Some(statement) => self.insert(step, statement, &contexts).await,
                None => return self.one_by_one(attempts).await,
            },
            Some([Step::Probe(step)]) => probe::run_batch(step, &runs(attempts, &contexts)).await,
            _ => return self.one_by_one(attempts).await,
        };
        let ended = attempts.iter().zip(&mut contexts).zip(results);
        ended.map(|((attempt, context), result)| attempt.ended(finish(attempt, context, result))).collect()
    }

    async fn one_by_one(&self, attempts: &[Attempt<'_>]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            outcomes.push(self.perform(attempt).await);
        }
        outcomes
    }

    /// The statement once for each job whose values are complete.
    async fn insert(
        &self,
        step: &SqlStep,
        (statement, form): (&Statement, &MultiRow),
        contexts: &[Context<'_>],
    ) -> Vec<Result<Value, Halt>> {
        let mut results: Vec<Option<Result<Value, Halt>>> = Vec::with_capacity(contexts.len());
        let mut rows: Vec<Vec<Cow<'_, Value>>> = Vec::with_capacity(contexts.len());
        for context in contexts {
            match values(step, statement, context) {
                Ok(values) => {
                    rows.push(values);
                    results.push(None);
                }
                Err(halt) => results.push(Some(Err(halt))),
            }
        }
        let done = Box::pin(self.sql.run_rows(statement, form, &rows)).await;
        let mut done = done.into_iter().map(|result| result.map_err(SqlError::into_halt));
        let mut of_database = || done.next().expect("there is a result for each row");
        results.into_iter().map(|result| result.unwrap_or_else(&mut of_database)).collect()
    }
}

/// The only statement of the step, if it has a form for many rows.
fn many_rows(step: &SqlStep) -> Option<(&Statement, &MultiRow)> {
    let [statement] = step.statements.as_slice() else { return None };
    Some((statement, statement.multi_row.as_ref()?))
}

/// The values of the statement's placeholders, as [`sql::values`] would give them. Most stay where they are.
fn values<'a>(step: &SqlStep, statement: &Statement, context: &'a Context<'_>) -> Result<Vec<Cow<'a, Value>>, Halt> {
    let mut values = Vec::with_capacity(statement.names.len());
    for name in &statement.names {
        if let Some((_, template)) = step.values.iter().find(|(known, _)| known == name) {
            values.push(Cow::Owned(context.render(template)?));
        } else if let Some(value) = context.args().get(name) {
            values.push(Cow::Borrowed(value));
        } else {
            let named = Named { args: context.args(), more: more_values(step, context)? };
            return Ok(sql::values(0, statement, &named)?.into_iter().map(Cow::Owned).collect());
        }
    }
    Ok(values)
}

/// The further values of the step, which win over arguments of the same name.
pub(super) fn more_values(step: &SqlStep, context: &Context<'_>) -> Result<Args, RenderError> {
    step.values.iter().map(|(name, template)| Ok((name.clone(), context.render(template)?))).collect()
}

fn runs<'a>(attempts: &'a [Attempt<'_>], contexts: &'a [Context<'_>]) -> Vec<Run<'a>> {
    let run = |(attempt, context): (&'a Attempt<'_>, &'a Context<'_>)| Run {
        job: attempt.job,
        attempt: attempt.attempt,
        params: &attempt.task.params,
        step: 0,
        context,
        steps: &attempt.steps,
        notepad: &attempt.notepad,
    };
    attempts.iter().zip(contexts).map(run).collect()
}

fn finish(attempt: &Attempt<'_>, context: &mut Context<'_>, result: Result<Value, Halt>) -> Result<Value, Halt> {
    let result = result?;
    // The same for all jobs of the task, whatever the step has given.
    if let Some(template) = attempt.task.result.as_ref().filter(|template| template.templates().is_empty()) {
        attempt.steps.finish(result);
        return Ok(template.render(&Value::Null)?);
    }
    attempt.steps.finish(result.clone());
    context.finish_step(result);
    attempt.result(context)
}
