#[test]
fn loads() {
    let mut ebpf = aya::EbpfLoader::new().load_file("../target/bpf/lb.o").unwrap();
    for name in ["lb_ingress", "lb_decap"] {
        let p: &mut aya::programs::Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        if let Err(e) = p.load() {
            let s = format!("{e}");
            panic!(
                "{name}: {}",
                s.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        let i = p.info().unwrap();
        println!("{name} {:?} {:?}", i.verified_instruction_count(), i.size_translated());
    }
    let p: &mut aya::programs::SkReuseport = ebpf.program_mut("lb_steer").unwrap().try_into().unwrap();
    p.load().unwrap();
}
