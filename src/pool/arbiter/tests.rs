//! Proportions, rank, ageing, and random schedules against what must hold after each step.

use std::time::Duration;

use super::*;

const STARVE_AFTER: Duration = Duration::from_secs(60);

fn weighted(bound: usize) -> SlotRules {
    SlotRules { bound: Some(bound), order: SlotOrder::Weighted }
}

fn strict(bound: usize) -> SlotRules {
    SlotRules { bound: Some(bound), order: SlotOrder::Strict { starve_after: STARVE_AFTER } }
}

/// A pool that always reports in time.
#[derive(Debug, Clone)]
struct Player {
    seat: SeatId,
    weight: u64,
    busy: usize,
    /// Jobs that wait in its queue.
    backlog: usize,
    limit: usize,
    unused: usize,
    got: usize,
}

struct Game {
    arbiter: Arbiter,
    now: Instant,
    players: Vec<Player>,
    /// Who got each slot, in order.
    order: Vec<usize>,
}

impl Game {
    fn new(rules: SlotRules, weights: &[u64]) -> Self {
        let now = Instant::now();
        let mut arbiter = Arbiter::new();
        arbiter.configure(rules, now);
        let player = |weight: &u64| Player {
            seat: arbiter.enter(),
            weight: *weight,
            busy: 0,
            backlog: usize::MAX,
            limit: usize::MAX,
            unused: 0,
            got: 0,
        };
        let players = weights.iter().map(player).collect();
        Self { arbiter, now, players, order: Vec::new() }
    }

    /// The player speaks, and starts what it may; then so do those who were woken by that.
    fn speak(&mut self, who: usize) -> Grant {
        let mut first = None;
        let mut speakers = vec![who];
        while let Some(who) = speakers.pop() {
            let player = &mut self.players[who];
            let need = Need {
                weight: player.weight,
                busy: player.busy,
                more: player.backlog.min(player.limit - player.busy).min(1000),
                unused: std::mem::take(&mut player.unused),
                came: 0,
                collect: true,
            };
            let (grant, woken) = self.arbiter.ask(player.seat, &need, self.now);
            player.busy += grant.start;
            player.got += grant.start;
            player.backlog = player.backlog.saturating_sub(grant.start);
            self.order.extend(std::iter::repeat_n(who, grant.start));
            speakers.extend(woken.iter().filter_map(|seat| self.players.iter().position(|other| other.seat == *seat)));
            first.get_or_insert(grant);
        }
        first.expect("somebody spoke")
    }

    fn finish(&mut self, who: usize) {
        self.players[who].busy -= 1;
        self.speak(who);
    }

    fn all_speak(&mut self) {
        for who in 0..self.players.len() {
            self.speak(who);
        }
    }

    /// Slots go round until `slots` were given out; the oldest job ends first.
    fn play(&mut self, slots: usize) {
        self.order.clear();
        let mut running: std::collections::VecDeque<usize> =
            (0..self.players.len()).flat_map(|who| std::iter::repeat_n(who, self.players[who].busy)).collect();
        while self.order.len() < slots {
            let who = running.pop_front().expect("something runs");
            let before = self.order.len();
            self.finish(who);
            running.extend(&self.order[before..]);
        }
    }

    fn shares(&self) -> Vec<usize> {
        (0..self.players.len()).map(|who| self.order.iter().filter(|got| **got == who).count()).collect()
    }
}

#[test]
fn by_weight_slots_come_in_proportion() {
    for (bound, weights) in
        [(4, vec![6, 3, 1]), (1, vec![6, 3, 1]), (100, vec![6, 3, 1]), (3, vec![100, 1]), (7, vec![1; 5])]
    {
        let mut game = Game::new(weighted(bound), &weights);
        game.all_speak();
        game.play(1000); // Whoever spoke first had everything; that evens out.
        game.play(10_000);
        let all: u64 = weights.iter().sum();
        for (share, weight) in game.shares().into_iter().zip(&weights) {
            let fair = usize::try_from(10_000 * weight / all).expect("a small number");
            assert!(share.abs_diff(fair) <= 3, "bound {bound}, weights {weights:?}: {share} instead of {fair}");
        }
    }
}

#[test]
fn by_weight_there_are_no_bursts() {
    let mut game = Game::new(weighted(1), &[6, 3, 1]);
    game.all_speak();
    game.play(10_000);
    for window in game.order.windows(10) {
        let count = |who| window.iter().filter(|got| **got == who).count();
        assert!((5..=7).contains(&count(0)) && (2..=4).contains(&count(1)) && count(2) <= 2, "{window:?}");
    }
}

#[test]
fn strictly_the_heaviest_comes_first_and_equals_take_turns() {
    let mut game = Game::new(strict(2), &[5, 9, 9]);
    game.all_speak();
    game.play(100);
    assert_eq!(game.shares(), [0, 50, 50]);
    for who in [1, 2] {
        game.players[who].backlog = 0;
        game.speak(who);
    }
    game.play(100);
    assert!(game.shares()[0] >= 98, "what the heavy do not want goes to the light: {:?}", game.shares());
}

#[test]
fn strictly_nothing_starves() {
    let mut game = Game::new(strict(1), &[9, 1, 1]);
    game.all_speak();
    let mut gaps = [0, 0];
    for second in 1..=3600 {
        game.now += Duration::from_secs(1);
        game.play(1);
        for who in [1, 2] {
            gaps[who - 1] = if game.order == [who] { 0 } else { gaps[who - 1] + 1 };
            assert!(gaps[who - 1] <= 61, "player {who} waits for {} s at second {second}", gaps[who - 1]);
        }
    }
    let got: Vec<usize> = game.players.iter().map(|player| player.got).collect();
    assert!(got[0] >= 3600 - 2 * 60 - 2, "ageing gives a slot, not the rank: {got:?}");
    assert!((58..=60).contains(&got[1]) && (58..=60).contains(&got[2]), "{got:?}");
}

#[test]
fn a_queue_that_is_alone_gets_everything_at_once() {
    for rules in [weighted(8), strict(8)] {
        let mut game = Game::new(rules, &[100, 1]);
        game.players[0].backlog = 0;
        game.all_speak();
        assert_eq!(game.players[1].busy, 8);
    }
}

#[test]
fn idleness_earns_nothing() {
    let mut game = Game::new(weighted(1), &[1, 1]);
    game.players[0].backlog = 0;
    game.all_speak();
    game.play(1000);
    game.players[0].backlog = usize::MAX;
    game.speak(0);
    game.play(10);
    assert!((5..=6).contains(&game.shares()[0]), "{:?}", game.order);
}

#[test]
fn a_slot_for_which_there_was_no_job_is_not_held_against_the_queue() {
    let mut game = Game::new(weighted(1), &[1, 1]);
    game.all_speak();
    game.play(100);
    // Each time it is the turn of the first, it finds nothing and gives the slot back; a moment later there is a job.
    let mut got = [0_usize, 0];
    for _ in 0..1000 {
        let who = usize::from(game.players[1].busy == 1);
        got[who] += 1;
        if who == 0 && got[0].is_multiple_of(2) {
            game.players[0] = Player { busy: 0, unused: 1, backlog: 0, ..game.players[0].clone() };
            game.speak(0);
            game.players[0].backlog = usize::MAX;
            game.speak(0);
        } else {
            game.finish(who);
        }
    }
    // In vain every second time, and still a real one for each of the other's.
    let real = got[0] - got[0] / 2;
    assert!(real.abs_diff(got[1]) <= got[1] / 10, "{real} against {}", got[1]);
}

#[test]
fn what_is_reserved_and_no_longer_wanted_goes_on() {
    let now = Instant::now();
    let mut arbiter = Arbiter::new();
    arbiter.configure(weighted(2), now);
    let (a, b) = (arbiter.enter(), arbiter.enter());
    let need = |more, collect| Need { weight: 1, busy: 0, more, unused: 0, came: 0, collect };
    assert_eq!(arbiter.ask(a, &need(2, false), now).0.start, 0, "it cannot use them yet");
    assert_eq!(arbiter.ask(b, &need(2, true), now).0.start, 0, "they are reserved");
    let (grant, woken) = arbiter.ask(a, &need(1, true), now);
    assert_eq!((grant.start, woken), (1, vec![b]));
    assert_eq!(arbiter.ask(b, &need(2, true), now).0.start, 1);
}

#[test]
fn whoever_leaves_gives_everything_back() {
    let mut game = Game::new(weighted(3), &[1, 1]);
    game.speak(0);
    assert_eq!(game.players[0].busy, 3);
    game.speak(1);
    let woken = game.arbiter.leave(game.players[0].seat, game.now);
    assert_eq!(woken, [game.players[1].seat]);
    game.speak(1);
    assert_eq!(game.players[1].busy, 3);
}

#[test]
fn a_new_bound_waits_until_it_knows_what_runs() {
    let mut game = Game::new(SlotRules { bound: None, order: SlotOrder::Weighted }, &[1, 1]);
    // A word that was on its way when the last bound went.
    assert_eq!(game.speak(0).start, 0);
    (game.players[0].busy, game.players[1].busy) = (5, 1);
    game.arbiter.configure(weighted(4), game.now);
    game.speak(1);
    assert_eq!(game.players[1].busy, 1, "the other may be using any number");
    game.speak(0);
    assert_eq!((game.players[0].busy, game.players[1].busy), (5, 1), "over the bound: the surplus ends by itself");
    for _ in 0..3 {
        game.players[0].backlog = 0;
        game.finish(0);
    }
    assert_eq!((game.players[0].busy, game.players[1].busy), (2, 2));
    game.arbiter.configure(weighted(6), game.now);
    game.all_speak();
    assert_eq!((game.players[0].busy, game.players[1].busy), (2, 4), "a higher bound is used at once");
}

#[test]
fn other_weights_count_at_once() {
    let mut game = Game::new(weighted(1), &[1, 50]);
    game.all_speak();
    game.play(500);
    (game.players[0].weight, game.players[1].weight) = (50, 1);
    game.all_speak();
    game.play(510);
    let shares = game.shares();
    assert!(shares[0].abs_diff(500) <= 2, "{shares:?}");
}

#[test]
fn messages_are_drawn_no_further_ahead_than_the_queue_can_run() {
    let now = Instant::now();
    let mut arbiter = Arbiter::new();
    arbiter.configure(weighted(10), now);
    let seats = [arbiter.enter(), arbiter.enter(), arbiter.enter()];
    let need = |weight, busy, came| Need { weight, busy, more: 0, unused: 0, came, collect: true };
    let mut ahead = |who: usize, need: &Need| arbiter.ask(seats[who], need, now).0.ahead;
    let weights = [6, 3, 1];
    for (who, weight) in weights.into_iter().enumerate() {
        ahead(who, &need(weight, 0, 0));
    }
    assert_eq!([0, 1, 2].map(|who| ahead(who, &need(weights[who], 0, 0))), [7, 4, 2], "each its part of an idle node");
    assert_eq!(ahead(2, &need(1, 3, 3)), 6, "more of what works, while there are free slots");
    assert_eq!(ahead(2, &need(1, 8, 5)), 2, "no more than there are");
    assert_eq!(ahead(2, &need(1, 10, 5)), 2, "what it can compete with");
    arbiter.configure(strict(10), now);
    let mut ahead = |who: usize, need: &Need| arbiter.ask(seats[who], need, now).0.ahead;
    assert_eq!([0, 1, 2].map(|who| ahead(who, &need(weights[who], 3, 0))), [10, 1, 1]);
}

/// Any order of words, with jobs that end, empty queues, pools that come and go, and rules that change.
#[test]
fn nothing_is_given_twice_and_nothing_lies_idle() {
    for seed in 1..=40 {
        let mut random = Random(seed);
        let mut game = Game::new(weighted(5), &[6, 3, 1, 1]);
        game.all_speak();
        let (mut bound, mut busy) = (5, 5);
        for step in 0..2000 {
            let who = random.below(game.players.len());
            match random.below(12) {
                0..5 if game.players[who].busy > 0 => game.finish(who),
                5 => game.players[who].backlog = random.below(20),
                6 => game.players[who].limit = random.below(8).max(game.players[who].busy),
                // A claim came back with nothing.
                7 if game.players[who].busy > 0 => {
                    let player = &mut game.players[who];
                    (player.busy, player.unused, player.backlog) = (player.busy - 1, 1, 0);
                    game.speak(who);
                }
                8 => game.players[who].weight = 1 + random.below(100) as u64,
                9 if step % 7 == 0 => {
                    let woken = game.arbiter.leave(game.players[who].seat, game.now);
                    game.players[who] = Player { seat: game.arbiter.enter(), busy: 0, unused: 0, ..game.players[who] };
                    let is_woken = |player: &Player| woken.contains(&player.seat);
                    let others: Vec<usize> = (0..4).filter(|other| is_woken(&game.players[*other])).collect();
                    for other in others {
                        game.speak(other);
                    }
                }
                10 if step % 11 == 0 => {
                    bound = 1 + random.below(9);
                    let rules = if random.below(2) == 0 { weighted(bound) } else { strict(bound) };
                    game.arbiter.configure(rules, game.now);
                    game.all_speak();
                }
                _ => game.now += Duration::from_secs(random.below(30) as u64),
            }
            game.speak(who);
            busy = check(&game, bound, busy, seed);
        }
    }
}

/// Nobody has to speak again for this: everyone said what they want when it changed.
fn check(game: &Game, bound: usize, before: usize, seed: u64) -> usize {
    let busy: usize = game.players.iter().map(|player| player.busy).sum();
    assert!(busy <= bound.max(before), "seed {seed}: {busy} of {bound}");
    let could = |player: &Player| player.backlog > 0 && player.busy < player.limit;
    assert!(busy >= bound || !game.players.iter().any(could), "seed {seed}: {busy} of {bound}: {:?}", game.players);
    busy
}

/// A small generator of our own: a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}
