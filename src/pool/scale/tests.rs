//! The controller: within its bounds for any input, fast up, slow down, and never to and fro.

use super::*;

fn scale(min: usize, max: usize) -> Scale {
    Scale::new(Concurrency { min, max })
}

fn crowded(scale: &Scale, backlog: u64) -> Load {
    Load { busy: scale.size(), backlog, ..Load::default() }
}

/// A generator of numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("it is below the bound")
    }

    fn share(&mut self) -> Option<f64> {
        let share = f64::from(u32::try_from(self.below(101)).expect("small"));
        (self.below(4) == 0).then_some(share)
    }

    fn any(&mut self, size: usize) -> Load {
        let pushback = (self.below(10) == 0).then(|| "Http429".to_owned());
        Load {
            busy: self.below(size + 3),
            backlog: self.below(3000) as u64 * self.below(2) as u64,
            pushback,
            crowded_out: self.below(8) == 0,
            cpu: self.share(),
            memory: self.share(),
        }
    }
}

/// How often the sizes turn from growing to shrinking or back.
fn turns(sizes: &[usize]) -> usize {
    let moves: Vec<bool> = sizes.windows(2).filter(|pair| pair[0] != pair[1]).map(|pair| pair[1] > pair[0]).collect();
    moves.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// The sizes over so many ticks of a load that depends on the tick and the size.
fn run(scale: &mut Scale, ticks: usize, mut load: impl FnMut(usize, &Scale) -> Load) -> Vec<usize> {
    let mut sizes = vec![scale.size()];
    for tick in 0..ticks {
        let load = load(tick, scale);
        let (before, step) = (scale.size(), scale.tick(&load));
        assert_eq!(step.as_ref().map_or(before, |step| step.to), scale.size(), "a step says what has happened");
        sizes.push(scale.size());
    }
    sizes
}

#[test]
fn a_backlog_takes_it_to_the_top_in_a_few_steps() {
    let mut queue = scale(3, 10);
    let sizes = run(&mut queue, 6, |_, scale| crowded(scale, 2000));
    assert_eq!(sizes, [3, 5, 8, 10, 10, 10, 10]);
    let mut queue = scale(1, 1000);
    let ticks = run(&mut queue, 100, |_, scale| crowded(scale, 1_000_000)).iter().filter(|size| **size < 1000).count();
    assert!(ticks <= 18, "from 1 to 1000 took {ticks} ticks");
}

#[test]
fn it_comes_down_slowly_and_to_the_bottom() {
    let mut queue = scale(3, 10);
    run(&mut queue, 10, |_, scale| crowded(scale, 2000));
    let sizes = run(&mut queue, 7 * CALM as usize, |_, _| Load::default());
    assert_eq!(sizes.iter().filter(|size| **size == 10).count(), CALM as usize);
    assert_eq!((sizes.last(), turns(&sizes)), (Some(&3), 0));
    assert!(sizes.windows(2).all(|pair| pair[0] - pair[1] <= 1), "{sizes:?}");
    assert!(queue.is_at_rest());
}

#[test]
fn a_few_long_jobs_get_their_slots_too() {
    let mut queue = scale(1, 4);
    let sizes = run(&mut queue, 40, |_, scale| crowded(scale, 1));
    assert_eq!(sizes.last(), Some(&4), "one that waits behind long jobs does not wait for ever: {sizes:?}");
    assert_eq!(
        run(&mut queue, 100, |_, _| Load { busy: 4, ..Load::default() }).last(),
        Some(&4),
        "they are all in use"
    );
}

#[test]
fn what_is_in_use_is_not_taken() {
    let mut queue = scale(1, 16);
    run(&mut queue, 20, |_, scale| crowded(scale, 2000));
    let sizes = run(&mut queue, 1000, |tick, _| Load { busy: 3 + tick % 5, ..Load::default() });
    assert_eq!((sizes.last(), turns(&sizes)), (Some(&8), 0), "the seven, and one to notice when they are too few");
}

#[test]
fn no_input_takes_it_out_of_its_bounds() {
    for seed in 1..=300 {
        let mut random = Random(seed);
        let min = 1 + random.below(20);
        let mut bounds = Concurrency { min, max: min + random.below(50) };
        let mut queue = Scale::new(bounds);
        for _ in 0..1000 {
            if random.below(100) == 0 {
                let min = 1 + random.below(20);
                bounds = Concurrency { min, max: min + random.below(50) };
                queue = queue.within(bounds);
            }
            let load = random.any(queue.size());
            queue.tick(&load);
            assert!((bounds.min..=bounds.max).contains(&queue.size()), "{} in {bounds} after {load:?}", queue.size());
        }
    }
}

/// The queue drains as fast as its slots allow, new jobs come at a random pace around a fixed mean, and attempts of a
/// random length are in use: in an hour it turns a few times, not with each wave.
#[test]
fn a_noisy_load_does_not_make_it_flap() {
    let mut worst = 0;
    for seed in 1..=200 {
        let mut random = Random(seed);
        let (mean, rate, mut backlog) = (1 + random.below(12), 1 + random.below(3), 0_usize);
        let mut queue = scale(3, 10);
        let sizes = run(&mut queue, 7200, |_, scale| {
            backlog += random.below(2 * mean * rate);
            let busy = backlog.min(scale.size());
            backlog = backlog.saturating_sub(busy * rate);
            Load { busy, backlog: backlog as u64, ..Load::default() }
        });
        worst = worst.max(turns(&sizes[60..]));
    }
    println!("at most {worst} turns in an hour of noise");
    assert!(worst <= 72, "{worst} turns in an hour, more than one in 50 s");
}

#[test]
fn a_constant_load_never_makes_it_turn() {
    for seed in 1..=500 {
        let mut random = Random(seed);
        let mut queue = scale(1 + random.below(5), 5 + random.below(30));
        let (busy, backlog, cpu, memory) =
            (random.below(40), random.below(4) as u64 * 500, random.share(), random.share());
        let sizes = run(&mut queue, 2000, |_, scale| {
            let busy = busy.min(scale.size());
            Load { busy, backlog: if busy == scale.size() { backlog } else { 0 }, cpu, memory, ..Load::default() }
        });
        assert!(turns(&sizes) <= 1, "busy {busy}, backlog {backlog}, cpu {cpu:?}, memory {memory:?}: {sizes:?}");
    }
}

#[test]
fn a_pushback_is_heard_at_once_and_not_forgotten_soon() {
    let mut queue = scale(3, 10);
    run(&mut queue, 10, |_, scale| crowded(scale, 2000));
    let pushed = Load { pushback: Some("Http429".to_owned()), ..crowded(&queue, 2000) };
    let step = queue.tick(&pushed).expect("it shrinks");
    assert_eq!((step.from, step.to, step.reason.to_string().as_str()), (10, 8, "pushback: Http429"));
    assert_eq!(queue.tick(&pushed), None, "what it hit had started before");
    let sizes = run(&mut queue, 20, |_, scale| crowded(scale, 2000));
    assert_eq!(sizes[17], 8, "{sizes:?}");
    assert_eq!(sizes.last(), Some(&9), "then one slot at a time");

    // A service that takes seven at a time and no more.
    let mut queue = scale(3, 20);
    let sizes = run(&mut queue, 7200, |_, scale| Load {
        pushback: (scale.size() > 7).then(|| "Http429".to_owned()),
        ..crowded(scale, 2000)
    });
    let settled = &sizes[600..];
    assert!(settled.iter().all(|size| (5..=8).contains(size)), "it stays around seven");
    println!("{} turns in 55 minutes of pushbacks", turns(settled));
    assert!(turns(settled) <= 90, "{} turns in 55 minutes", turns(settled));
}

#[test]
fn a_busy_machine_holds_it_and_a_choking_one_shrinks_it() {
    let mut queue = scale(3, 10);
    let busy = |cpu, memory| move |_: usize, scale: &Scale| Load { cpu, memory, ..crowded(scale, 2000) };
    run(&mut queue, 50, busy(Some(85.0), None));
    let held = queue.held().map(Reason::to_string);
    assert_eq!((queue.size(), held.as_deref()), (3, Some("something waits for the CPU 85 % of the time")));
    run(&mut queue, 50, busy(Some(79.0), Some(9.0)));
    assert_eq!((queue.size(), queue.held()), (10, None));
    run(&mut queue, 50, busy(Some(85.0), Some(11.0)));
    assert_eq!(queue.size(), 10, "what it has it keeps");
    let sizes = run(&mut queue, 400, busy(None, Some(30.0)));
    assert_eq!((sizes[1], sizes.last(), turns(&sizes)), (9, Some(&3), 0));
}

#[test]
fn a_queue_that_is_crowded_out_by_others_keeps_its_size() {
    let mut queue = scale(3, 10);
    run(&mut queue, 50, |_, scale| crowded(scale, 2000));
    let sizes = run(&mut queue, 500, |_, _| Load { busy: 2, backlog: 2000, crowded_out: true, ..Load::default() });
    assert_eq!(sizes.last(), Some(&10));
}

#[test]
fn other_bounds_hold_at_once() {
    let mut queue = scale(3, 10);
    for (min, max, size) in [(5, 8, 5), (5, 6, 5), (1, 2, 2), (1, 9, 2)] {
        queue = queue.within(Concurrency { min, max });
        assert_eq!(queue.size(), size, "between {min} and {max}");
    }
}
