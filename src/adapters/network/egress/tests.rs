use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::net::{Ipv4Addr, Ipv6Addr};

fn policy(deny_private: bool, allow_loopback: bool, refused: &[&str]) -> EgressPolicy {
    let refused = refused.iter().map(|text| text.parse().unwrap()).collect();
    EgressPolicy::new(deny_private, allow_loopback, refused)
}

async fn check(policy: &EgressPolicy, host: &str) -> bool {
    policy.check_url(&url(host)).await.is_ok()
}

fn url(host: &str) -> Url {
    Url::parse(&format!("https://{host}/v2/")).unwrap()
}

#[rstest]
#[case::without_a_host("data:text/plain,x")]
#[case::without_a_port("unknown://registry.example/")]
#[tokio::test]
async fn a_url_that_leads_nowhere_is_refused(#[case] url: &str) {
    let refused = policy(false, true, &[]).check_url(&url.parse().unwrap()).await;
    assert!(
        matches!(refused, Err(NetworkError::AddressRefused { .. })),
        "{refused:?}"
    );
}

#[rstest]
#[case::loopback("127.0.0.1")]
#[case::loopback_other("127.8.9.10")]
#[case::decimal("2130706433")]
#[case::hexadecimal("0x7f000001")]
#[case::octal("0177.0.0.1")]
#[case::short("127.1")]
#[case::trailing_dot("127.0.0.1.")]
#[case::percent_encoded("%31%32%37.0.0.1")]
#[case::full_width("１２７.0.0.1")]
#[case::loopback_v6("[::1]")]
#[case::mapped("[::ffff:127.0.0.1]")]
#[case::compatible("[::127.0.0.1]")]
#[case::translated("[::ffff:0:127.0.0.1]")]
#[case::nat64("[64:ff9b::169.254.169.254]")]
#[case::nat64_local("[64:ff9b:1::169.254.169.254]")]
#[case::six_to_four("[2002:a9fe:a9fe::1]")]
#[case::teredo("[2001:0:1::5601:5601]")]
#[case::metadata("169.254.169.254")]
#[case::metadata_mapped("[::ffff:a9fe:a9fe]")]
#[case::metadata_alibaba("100.100.100.200")]
#[case::metadata_azure("168.63.129.16")]
#[case::metadata_oracle("192.0.0.192")]
#[case::metadata_amazon_v6("[fd00:ec2::254]")]
#[case::metadata_google_v6("[fd20:ce::254]")]
#[case::link_local("[fe80::1]")]
#[case::site_local("[fec0::1]")]
#[case::unspecified("0.0.0.0")]
#[case::this_network("0.1.2.3")]
#[case::zero("0")]
#[case::unspecified_v6("[::]")]
#[case::multicast("224.0.0.1")]
#[case::multicast_v6("[ff02::1]")]
#[case::reserved("240.0.0.1")]
#[case::broadcast("255.255.255.255")]
#[tokio::test]
async fn refuses_addresses_however_they_are_written(#[case] host: &str) {
    let error = EgressPolicy::default().check_url(&url(host)).await.unwrap_err();
    assert!(matches!(error, NetworkError::AddressRefused { .. }), "{error}");
}

#[rstest]
#[case::public("93.184.215.14", true, true)]
#[case::public_v6("[2606:2800:21f:cb07:6820:80da:af6b:8b2c]", true, true)]
#[case::ten("10.1.2.3", true, false)]
#[case::seventeen("172.31.0.1", true, false)]
#[case::above_seventeen("172.32.0.1", true, true)]
#[case::nineteen("192.168.1.1", true, false)]
#[case::carrier("100.64.0.1", true, false)]
#[case::above_carrier("100.128.0.1", true, true)]
#[case::unique_local("[fd12::1]", true, false)]
#[case::private_in_nat64("[64:ff9b::10.0.0.1]", true, false)]
#[case::name("registry.example", true, true)]
#[tokio::test]
async fn private_addresses_are_refused_on_demand(#[case] host: &str, #[case] open: bool, #[case] strict: bool) {
    assert_eq!(check(&policy(false, false, &[]), host).await, open);
    assert_eq!(check(&policy(true, false, &[]), host).await, strict);
}

#[tokio::test]
async fn further_addresses_are_refused_in_every_form_and_on_every_port() {
    let policy = policy(false, true, &["10.96.0.1:443", "127.0.0.1:6443"]);
    assert!(!check(&policy, "10.96.0.1").await);
    assert!(!check(&policy, "10.96.0.1:8443").await);
    assert!(!check(&policy, "[::ffff:10.96.0.1]").await);
    assert!(check(&policy, "10.96.0.2").await);
}

#[tokio::test]
async fn on_loopback_only_the_port_is_refused() {
    let policy = policy(false, true, &["127.0.0.1:6443"]);
    assert!(check(&policy, "127.0.0.1:5000").await);
    assert!(check(&policy, "localhost:5000").await);
    assert!(!check(&policy, "127.0.0.1:6443").await);
    assert!(!check(&policy, "[::1]:6443").await);
    assert!(!check(&policy, "localhost:6443").await);
}

#[tokio::test]
async fn refusals_read_the_same_for_every_address() {
    let mut texts = std::collections::BTreeSet::new();
    for host in ["127.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0"] {
        let error = EgressPolicy::default().check_url(&url(host)).await.unwrap_err();
        texts.insert(error.to_string().replace(url(host).host_str().unwrap(), "HOST"));
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
}

proptest! {
    #[test]
    fn what_is_refused_as_ipv4_is_refused_inside_ipv6(bytes in any::<[u8; 4]>()) {
        let v4 = Ipv4Addr::from(bytes);
        let [a, b, c, d] = bytes.map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        let policy = policy(true, false, &[]);
        let carriers = [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 1, 1, 0, 0, !high, !low),
        ];
        for carrier in carriers {
            prop_assert_eq!(policy.permits(v4.into()), policy.permits(carrier.into()), "{}", carrier);
        }
    }

    #[test]
    fn whatever_is_permitted_can_be_told_from_loopback_and_metadata(bytes in any::<[u8; 16]>()) {
        let address = IpAddr::from(Ipv6Addr::from(bytes));
        if EgressPolicy::default().permits(address) {
            prop_assert!(!address.to_canonical().is_loopback() && !address.is_unspecified());
        }
    }
}
