#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the pump and the replies that use the wires are not in the tree yet")
)]
mod intake;

fn main() {}
