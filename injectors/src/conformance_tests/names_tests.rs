//! Names whose addresses change while a fault lives: by shaping, by a cut, and by a loss of nftables.

use super::*;

#[tokio::test]
async fn what_a_name_means_later_is_hit_as_well_and_what_it_meant_stays() {
    let named = |row: &&Row| matches!(row.aim, Aim::Named | Aim::Flows("api.example.org"));
    let drawn = row("network-loss", &[("share", "5%"), ("by", "nft")], Aim::Named);
    let rows: Vec<&Row> = ROWS.iter().filter(named).chain([&drawn]).collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let (world, env, change) = row.prepared().await;
        let before = world.look();
        row.apply(&env, &change).await.unwrap();
        let renew = async |seconds: u64| {
            row.injector().renew(&env, &change, Duration::from_secs(seconds)).await.unwrap();
            let mut hit = world.hit_addresses();
            hit.sort();
            hit
        };
        let address = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
        assert_eq!(renew(5).await, [address(2)]);
        world.name_means(&[address(3)]);
        assert_eq!(renew(6).await, [address(2), address(3)], "connections outlive a name's addresses");
        world.name_means(&[address(4)]);
        assert_eq!(renew(8).await, [address(2), address(3)], "a name is not asked for each second");
        assert_eq!(renew(10).await, [address(2), address(3), address(4)]);
        for first in [0, 64, 128, 192] {
            let many: Vec<_> = (first..=first + 63).map(address).collect();
            world.name_means(&many);
            let hit = renew(15).await;
            assert!(hit.len() <= 130 && many.iter().all(|one| hit.contains(one)), "{}", row.fault);
        }
        assert_eq!(restore(&env, &change).await.unwrap(), Undone::Reverted);
        world.name_means(&[address(9)]);
        // Whether a late renewal is an error is the carrier's affair.
        let _ = row.injector().renew(&env, &change, Duration::from_secs(20)).await;
        assert_eq!(world.look(), before, "a renewal revived it");
    }
}
