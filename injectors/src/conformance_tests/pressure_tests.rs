//! What the faults of pressure obey besides: what others write, groups that go, and what there is not.

use super::*;

#[tokio::test]
async fn a_process_that_has_got_the_number_of_another_keeps_its_limit() {
    for row in ROWS.iter().filter(|row| row.fault == "fd-exhaust") {
        let (world, env, change) = row.prepared().await;
        world.reuse_all_numbers();
        row.apply(&env, &change).await.unwrap_err();
        assert_eq!(world.look()["pressure"]["lowered"], serde_json::json!([]), "between prepare and apply");

        let (world, env, change) = row.prepared().await;
        row.apply(&env, &change).await.unwrap();
        let lowered = world.look();
        world.reuse_all_numbers();
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo);
        assert_eq!(world.look()["pressure"], lowered["pressure"], "between apply and undo");
    }
}

#[tokio::test]
async fn what_somebody_else_has_written_into_a_group_meanwhile_is_theirs() {
    for (fault, file, text) in [
        ("cpu-throttle", "cpu.max", "70000 100000"),
        ("io-limit", "io.max", "8:0 rbps=max wbps=7 riops=100 wiops=max"),
        ("memory-limit", "memory.max", "1073741824"),
    ] {
        let row = ROWS.iter().find(|row| row.fault == fault).unwrap();
        let (world, env, change) = row.prepared().await;
        row.apply(&env, &change).await.unwrap();
        world.state().pressure.set(file, text);
        let before = world.look();
        let error = restore(&env, &change).await.unwrap_err().to_string();
        assert!(
            error.contains("somebody else has written")
                && error.contains("`squall recover` names the command"),
            "{error}"
        );
        assert_eq!(world.look(), before, "{fault}: it is left alone");
        let proof = row.injector().observe(&env, &change).await.unwrap();
        assert_eq!(proof.status, ProofStatus::Mismatch, "{fault}: {proof:?}");
    }
}

#[tokio::test]
async fn a_group_that_was_made_again_under_its_name_is_not_written_to() {
    let groups = ["cpu-throttle", "io-limit", "memory-limit", "process-freeze"];
    for row in ROWS.iter().filter(|row| groups.contains(&row.fault)) {
        let (world, env, change) = row.prepared().await;
        row.apply(&env, &change).await.unwrap();
        world.state().pressure = crate::fake_pressure_tests::Pressure::new();
        world.state().pressure.made_again = true;
        let before = world.look();
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::NothingToDo, "{}", row.fault);
        assert_eq!(world.look(), before, "{}", row.fault);
        let error = row.apply(&env, &change).await.unwrap_err().to_string();
        assert!(error.contains("has gone"), "{error}");
    }
}

#[tokio::test]
async fn pressure_beyond_what_there_is_or_below_what_is_in_use_is_refused_with_the_way_out() {
    for (fault, args, aim, words) in [
        ("cpu-stress", &[("cores", "3"), ("load", "50%")][..], Aim::Host, "squall may use 2 cores, not 3"),
        ("cpu-stress", &[("cores", "5"), ("load", "50%")], Aim::Group, "this host has 4 cores, not 5"),
        ("cpu-throttle", &[("cores", "0.5")], Aim::Host, "name a control group"),
        ("disk-fill", &[("size", "90GiB")], Aim::Volume, "write a smaller `reserve`"),
        ("disk-fill", &[("fill", "5%")], Aim::Volume, "10.0 % full already"),
        ("fd-exhaust", &[("spare", "1020")], Aim::Port, "can open no more than 1020 as it is"),
        ("io-stress", &[("workers", "64"), ("block", "1B")], Aim::Volume, "block must be from 512B"),
        ("memory-limit", &[("size", "64MiB")], Aim::Group, "`below-use: true`"),
        ("memory-stress", &[("size", "4GiB")], Aim::Host, "less than the reserve of 512.0 MiB"),
        ("memory-stress", &[("fill", "20%")], Aim::Host, "4.0 GiB of 8.0 GiB are in use already"),
        ("memory-stress", &[("fill", "80%")], Aim::Group, "write `size`"),
        ("memory-stress", &[("size", "1MiB")], Aim::Host, "size must be at least 16.0 MiB"),
        ("disk-fill", &[("size", "1B")], Aim::Volume, "size must be at least 1.0 MiB"),
        ("io-stress", &[("workers", "1"), ("rate", "10KB/s")], Aim::Volume, "write a smaller `block`"),
    ] {
        let row = row(fault, args, aim);
        let (world, request) = (World::new(), row.request());
        let env = world.env(world.inventory());
        let text = match row.injector().check(&request.args, &request.target) {
            Err(mistakes) => mistakes.join("; "),
            Ok(()) => row.injector().prepare(&env, &request).await.unwrap_err().to_string(),
        };
        assert!(text.contains(words), "{fault}: {text}");
    }
}

#[tokio::test]
async fn a_file_system_in_memory_is_filled_no_further_than_there_is_memory() {
    let row = row("disk-fill", &[("size", "10GiB")], Aim::Volume);
    let world = World::new();
    let env = world.env(world.inventory());
    row.injector().prepare(&env, &row.request()).await.unwrap();
    let target = Target::Volume("/dev/shm/x".into());
    let request = Request { target, ..row.request() };
    let refused = row.injector().prepare(&env, &request).await.unwrap_err().to_string();
    assert!(refused.contains("4.0 GiB are available in the memory"), "{refused}");
}
