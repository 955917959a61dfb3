//! dev
#[path = "../scenario/l4_program.rs"]
mod l4_program;
#[path = "../scenario/program_object.rs"]
mod program_object;
fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1);
    for cost in l4_program::run(l4_program::ROUNDS, only.as_deref())? {
        let s = |v: &[f64]| { let mut v = v.to_vec(); v.sort_by(f64::total_cmp); (v[0], v[v.len()/2], v[v.len()-1]) };
        println!("{:36} whole {:?} above empty {:?} above swap {:?}", cost.case, s(&cost.whole_ns), s(&cost.above_empty_ns), s(&cost.above_swap_ns));
    }
    Ok(())
}
