//! `lb-bench`: lb beside its peers. Started by `cargo xtask bench`, which builds and installs what it needs.

mod budget;
mod context;
mod netns;
mod peers;
mod process;
mod sample;
mod scenario;
mod topology;

fn main() {
    for scenario in scenario::ALL {
        println!("{:14} {}", scenario.name(), scenario.description());
    }
}
