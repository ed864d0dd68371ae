//! Plays scenarios by the thousand, or one of them with a trace.

use clap::Parser;
use mobconn_sim::world::Tally;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Simulated scenarios of moves and faults
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// How many scenarios
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one
    #[arg(long)]
    seed: Option<u64>,
    /// Say everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; as many as there are processors
    #[arg(long)]
    jobs: Option<usize>,
}

/// Plays one, whatever happens in it.
fn play(seed: u64, trace: bool) -> Result<Tally, String> {
    std::panic::catch_unwind(|| mobconn_sim::play(seed, trace)).unwrap_or_else(|_| Err("a panic".into()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, count) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let next = AtomicU64::new(from);
    let end = from.saturating_add(count);
    let results = Mutex::new((Tally::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let result = play(seed, arguments.trace);
                    let Ok(mut results) = results.lock() else { return };
                    match result {
                        Ok(tally) => results.0.add(&tally),
                        Err(why) => {
                            println!("seed {seed}: {why}\n    again: sim --seed {seed} --trace");
                            results.1.push(seed);
                        }
                    }
                }
            });
        }
    });
    let Ok((tally, failed)) = results.into_inner() else { return ExitCode::FAILURE };
    println!("{tally}");
    println!("{} passed, {} failed", count.saturating_sub(failed.len() as u64), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
