//! How traffic is read, named, and told apart.

use std::path::PathBuf;

use super::*;

fn read(given: &[(&'static str, &str)]) -> Result<Traffic, Mistake> {
    Traffic::read(&given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
}

#[test]
fn an_aim_reads_as_it_was_written_and_order_does_not_matter() {
    let given =
        [("netns", "a"), ("to", "10.0.0.3, 10.0.0.2"), ("ports", "8000-8100,443"), ("protocol", "tcp")];
    let traffic = read(&given).unwrap();
    assert_eq!(traffic.to_string(), "the interface in netns a to 10.0.0.2,10.0.0.3 port 443,8000-8100 tcp");
    let other =
        read(&[("netns", "a"), ("to", "10.0.0.2,10.0.0.3"), ("ports", "443,8000-8100"), ("protocol", "tcp")]);
    assert_eq!(traffic, other.unwrap());
    assert_eq!(traffic.ways(), [Way::Out]);
    assert_eq!(traffic.slots().len(), 1);
    let both = read(&[("interface", "eth0"), ("direction", "both")]).unwrap();
    assert_eq!((both.to_string().as_str(), both.slots().len()), ("eth0, both ways", 2));
    let out = read(&[("interface", "eth0")]).unwrap();
    assert!(both.slots().contains(&out.slots()[0]), "one way is a part of both");
}

#[test]
fn networks_of_this_side_are_read_like_those_of_the_other_and_keep_aims_apart() {
    let given = [("interface", "eth0"), ("to", "10.0.0.2"), ("from", "fd00::1, 10.1.0.0/16")];
    let traffic = read(&given).unwrap();
    assert_eq!(traffic.to_string(), "eth0 to 10.0.0.2 from 10.1.0.0/16,fd00::1");
    assert_eq!(traffic.aim().short(), ";10.0.0.2;;;10.1.0.0/16,fd00::1");
    let told = serde_json::to_string(&traffic).unwrap();
    assert_eq!(serde_json::from_str::<Traffic>(&told).unwrap(), traffic);
    let crosses = |from: &str| traffic.crosses(&read(&[("interface", "eth0"), ("from", from)]).unwrap());
    assert!(crosses("10.1.2.3") && crosses("0.0.0.0/0"));
    assert!(!crosses("10.2.0.0/16"), "no packet comes from both");
    assert!(!traffic.meets("10.0.0.2:80".parse().unwrap()), "from where the load comes is not known");
    let wrong = |given: &[(&'static str, &str)]| read(given).unwrap_err().0;
    assert_eq!(wrong(&[("to", "10.0.0.1"), ("from", "10.0.0.1/8")]), Some("from"));
    assert_eq!(wrong(&[("to", "10.0.0.1"), ("from", "example.org")]), Some("from"));
    assert_eq!(wrong(&[("to", "10.0.0.1"), ("from", "fd00::1")]), Some("from"), "no packet is of both");
    assert_eq!(wrong(&[("instance", "auth-1"), ("from", "127.0.0.1")]), Some("from"));
    assert_eq!(wrong(&[("from", "10.0.0.1")]), None, "any interface may send it");
    let many: Vec<String> = (0..300).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)).collect();
    assert!(read(&[("interface", "eth0"), ("from", &many.join(","))]).is_err(), "too many for a filter");
}

#[test]
fn ssh_and_what_is_protected_are_exempt_from_every_aim() {
    let aim = read(&[("interface", "eth0"), ("protect", "10.9.0.0/16")]).unwrap().aim();
    assert_eq!(aim.exempt[0], Exempt { peer: None, port: Some(22) });
    assert_eq!(aim.exempt[1], Exempt { peer: Some("10.9.0.0/16".parse().unwrap()), port: None });
}

#[test]
fn what_cannot_be_an_aim_is_refused_by_the_name_of_its_parameter() {
    let wrong = |given: &[(&'static str, &str)]| read(given).unwrap_err().0;
    assert_eq!(wrong(&[]), None);
    assert_eq!(wrong(&[("netns", "../x"), ("to", "10.0.0.1")]), Some("netns"));
    assert_eq!(wrong(&[("netns", "a"), ("pid", "3"), ("to", "10.0.0.1")]), Some("pid"));
    assert_eq!(wrong(&[("interface", "a-name-far-too-long")]), Some("interface"));
    assert_eq!(wrong(&[("to", "10.0.0.1/8")]), Some("to"));
    assert_eq!(wrong(&[("to", "-?")]), Some("to"));
    assert_eq!(wrong(&[("to", "10.0.0.256")]), Some("to"), "no name ends in a number");
    assert_eq!(wrong(&[("to", "10.0.0.1"), ("ports", "9-1")]), Some("ports"));
    assert_eq!(wrong(&[("to", "10.0.0.1"), ("ports", "1"), ("protocol", "icmp")]), Some("protocol"));
}

#[test]
fn an_instance_is_the_other_side_and_says_by_itself_what_is_sent_to_it() {
    let traffic = read(&[("instance", "auth-1"), ("direction", "both")]).unwrap();
    assert_eq!(traffic.to_string(), "packets to and from auth-1");
    let instance = |addr: &str| crate::target::Instance {
        service: "auth".to_owned(),
        name: "auth-1".to_owned(),
        pop: None,
        addr: addr.to_owned(),
        process: None,
        supervisor: PathBuf::new(),
        relay: None,
    };
    let inventory = Inventory { instances: vec![instance("127.0.0.1:7001")], ..Inventory::default() };
    let aim = traffic.found(&inventory).unwrap().aim();
    assert_eq!((aim.short().as_str(), aim.exempt.len()), ("tcp;127.0.0.1;7001;;", 1));
    let unknown = traffic.found(&Inventory::default()).unwrap_err();
    assert!(unknown.contains("nobody knows where auth-1 listens"), "{unknown}");
    let given = [("instance", "auth-1"), ("ports", "80")];
    assert_eq!(read(&given).unwrap_err().0, Some("ports"));
    let other = read(&[("instance", "auth-2"), ("direction", "both")]).unwrap();
    assert!(!traffic.crosses(&other) && !traffic.crosses(&traffic));
    assert!(traffic.crosses(&read(&[("interface", "lo")]).unwrap()));
}

#[test]
fn a_name_stands_for_the_addresses_that_it_has() {
    let traffic = read(&[("to", "API.example.org, 10.0.0.0/8")]).unwrap();
    assert_eq!(traffic.to_string(), "the interface to 10.0.0.0/8,api.example.org");
    let resolved = traffic.clone().resolved(&["192.0.2.7".parse().unwrap()]).unwrap();
    assert_eq!(resolved.aim().short(), ";10.0.0.0/8,192.0.2.7;;;");
    let nothing = traffic.clone().resolved(&[]).unwrap_err();
    assert!(nothing.contains("api.example.org has no address"), "{nothing}");
    assert!(!traffic.crosses(&traffic));
    assert!(traffic.crosses(&read(&[("to", "192.0.2.9")]).unwrap()), "it may be one of its addresses");
}

#[test]
fn the_network_of_containers_is_named_by_one_selector_alone() {
    let shown = |given: &[(&'static str, &str)]| read(given).unwrap().to_string();
    assert_eq!(shown(&[("container", "web")]), "the interface of container web");
    let some = shown(&[("label", "app=web"), ("pick", "50%"), ("to", "10.0.0.1")]);
    assert_eq!(some, "the interface of 50% of the containers with label app=web to 10.0.0.1");
    let wrong = |given: &[(&'static str, &str)]| read(given).unwrap_err().0;
    assert_eq!(wrong(&[("container", "web"), ("netns", "a")]), Some("container"));
    assert_eq!(wrong(&[("container", "web"), ("label", "a")]), Some("label"));
    assert_eq!(wrong(&[("container", "web"), ("service", "auth")]), Some("container"));
    assert_eq!(wrong(&[("image", "a b")]), Some("image"));
}

#[test]
fn connections_of_this_host_to_an_address_of_the_aim_meet_it_and_no_others_are_claimed() {
    let meets = |given: &[(&'static str, &str)]| read(given).unwrap().meets("10.0.0.2:80".parse().unwrap());
    assert!(meets(&[("to", "10.0.0.0/24")]) && meets(&[("to", "10.0.0.2"), ("ports", "80-90")]));
    assert!(!meets(&[("to", "10.0.0.2"), ("ports", "443")]));
    assert!(!meets(&[("to", "10.0.0.2"), ("protocol", "udp")]));
    assert!(!meets(&[("to", "10.0.0.0/24"), ("protect", "10.0.0.2")]));
    assert!(!meets(&[("to", "10.0.0.2"), ("netns", "a")]), "another's connections");
    assert!(!meets(&[("interface", "eth0")]), "routes are not known here");
}

#[test]
fn unequal_aims_cross_where_they_share_an_interface_and_a_way() {
    let a = read(&[("interface", "eth0"), ("to", "10.0.0.1")]).unwrap();
    let crosses = |given: &[(&'static str, &str)]| a.crosses(&read(given).unwrap());
    assert!(!a.crosses(&a));
    assert!(crosses(&[("interface", "eth0")]));
    assert!(crosses(&[("to", "10.0.0.1")]), "it may be the same interface");
    assert!(!crosses(&[("to", "10.0.0.2")]), "no packet goes to both");
    assert!(crosses(&[("interface", "eth0"), ("to", "10.0.0.0/24"), ("ports", "443")]));
    assert!(!crosses(&[("interface", "eth0"), ("direction", "in")]));
    assert!(!crosses(&[("interface", "eth1"), ("to", "10.0.0.1")]));
    assert!(!crosses(&[("interface", "eth0"), ("netns", "a")]));
}
