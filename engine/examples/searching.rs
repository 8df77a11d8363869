//! Searches for capacities of simulated targets, for the bench: `searching SEEDS NOISE DISTURBED`, one JSON document.

use std::error::Error;
use std::io::Write as _;

use engine::capacity::{Answer, Goal, Purpose, Search, Step, Trial};
use serde_json::{Value, json};

#[path = "../src/capacity/simulated_tests.rs"]
mod simulated;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seeds, noise, disturbed] = arguments.as_slice() else {
        return Err("usage: searching SEEDS NOISE DISTURBED".into());
    };
    let (seeds, noise, disturbed) = (seeds.parse::<u64>()?, noise.parse()?, disturbed.parse()?);
    let one = |seed| {
        let mut target = simulated::Target::new(seed, noise, disturbed);
        let found = simulated::search(&mut target, simulated::goal()).finding();
        json!({"truth": target.capacity, "found": found})
    };
    let all: Vec<Value> = (0..seeds).map(one).collect();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&all)?)?;
    Ok(())
}
