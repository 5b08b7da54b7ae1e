use super::testing::{Bytes, Tar, gzip, header, seal};
use super::*;
use crate::domain::artifact::{BUNDLE_LAYER, Descriptor};
use crate::domain::trust::TrustPolicy;
use crate::domain::trust::testing::revision;
use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use proptest::prelude::*;
use rstest::rstest;
use std::io::Write as _;

fn manifest(digest: Digest, size: u64) -> Verified<PolicyManifest> {
    let verified = TrustPolicy::NotConfigured.decide(&revision(b"one"), &[]).unwrap();
    let bundle = Descriptor {
        media_type: BUNDLE_LAYER.to_owned(),
        digest,
        size,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let annotations = std::collections::BTreeMap::new();
    verified.carry_over(PolicyManifest {
        bundle,
        annotations: annotations.into(),
    })
}

fn read_within(bytes: Vec<u8>, limits: &Limits) -> Result<Verified<Bundle>, BundleError> {
    manifest(Digest::of(&bytes), bytes.len() as u64).bundle(
        Arc::new(Bytes(bytes)),
        limits,
        &CancellationToken::default(),
    )
}

fn read(bytes: Vec<u8>) -> Result<Verified<Bundle>, BundleError> {
    read_within(bytes, &Limits::default())
}

fn facts(tar: Tar) -> BundleFacts {
    read(tar.gzip()).unwrap().value().facts().as_ref().clone()
}

fn refusal(tar: Tar) -> BundleError {
    read(tar.gzip()).unwrap_err()
}

#[test]
fn tells_what_the_manifest_says() {
    let bytes = Tar::policy()
        .file(
            "/.manifest",
            br#"{"revision":"r1","roots":["app","/b/"],"rego_version":1}"#,
        )
        .gzip();
    let bundle = read(bytes.clone()).unwrap();
    let facts = bundle.value().facts();
    assert_eq!((facts.digest, facts.size), (Digest::of(&bytes), bytes.len() as u64));
    assert_eq!((facts.revision.as_str(), facts.rego_version), ("r1", Some(1)));
    assert_eq!(
        (facts.roots.as_slice(), facts.files),
        (["app", "b"].map(str::to_owned).as_slice(), 3)
    );
    assert_eq!(bundle.bytes(bytes.len() as u64).unwrap(), bytes);
    assert!(matches!(
        bundle.bytes(bytes.len() as u64 - 1),
        Err(BundleError::Limit { .. })
    ));
}

/// The bytes are not at fault: they stay where they are for whoever comes next.
#[test]
fn a_bundle_that_nobody_waits_for_is_not_read_to_its_end_nor_thrown_away() {
    #[derive(Debug)]
    struct Kept(Vec<u8>);
    impl Content for Kept {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
            Ok(Box::new(io::Cursor::new(self.0.clone())))
        }
        fn discard(&self) {
            panic!("thrown away")
        }
    }
    let bytes = Tar::policy().gzip();
    let verified = manifest(Digest::of(&bytes), bytes.len() as u64);
    let token = CancellationToken::default();
    drop(token.drop_guard());
    let read = verified.bundle(Arc::new(Kept(bytes)), &Limits::default(), &token);
    assert_eq!(read.unwrap_err(), BundleError::Cancelled);
}

/// Ten thousand paths of 512 bytes were kept with each bundle.
#[test]
fn what_is_kept_of_a_bundle_does_not_grow_with_its_files() {
    let many = (0..5000).fold(Tar::policy(), |tar, number| {
        tar.file(&format!("app/{number}/{}.rego", "d".repeat(80)), b"package app")
    });
    let few = facts(Tar::policy()).memory_bytes();
    assert_eq!(facts(many).memory_bytes(), few);
}

#[test]
fn without_a_manifest_the_bundle_claims_everything() {
    let facts = facts(Tar::policy());
    assert_eq!((facts.revision.as_str(), facts.rego_version), ("", None));
    assert_eq!(facts.roots, [""]);
}

/// What GNU tar, `git archive` and Go's library write for plain files.
#[test]
fn reads_what_usual_programs_write() {
    let long = format!("{}/policy.rego", "d".repeat(120));
    let mut prefixed = header(b"policy.rego", b'0', 0);
    prefixed[345..349].copy_from_slice(b"lib/");
    prefixed[348] = 0;
    let mut gnu = header(b"gnu.rego", b'0', 0);
    gnu[257..265].copy_from_slice(b"ustar  \0");
    let mut old = header(b"old.rego", 0, 0);
    old[257..265].fill(0);
    let tar = Tar::default()
        .entry(
            b"pax_global_header",
            b'g',
            b"52 comment=0123456789012345678901234567890123456789\n",
        )
        .entry(b"./", b'5', b"")
        .entry(b"./app/", b'5', b"")
        .file("./app/a.rego", b"package app")
        .raw(&seal(prefixed))
        .raw(&seal(gnu))
        .raw(&seal(old))
        .entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes())
        .file(&long[..100], b"")
        .with_attributes(
            &[("mtime", "1.5"), ("path", "app/pax.rego"), ("size", "3")],
            "short",
            b"abc",
        );
    let bytes = tar.gzip();
    let (size, token) = (bytes.len() as u64, CancellationToken::default());
    let mut source = HashingReader::new(Box::new(io::Cursor::new(bytes)), size, &token);
    let listing = archive::read(&mut source, size, &Limits::default()).unwrap();
    let files = listing.paths.into_files().unwrap();
    assert_eq!(
        files,
        [
            "app/a.rego",
            "app/pax.rego",
            &long,
            "gnu.rego",
            "lib/policy.rego",
            "old.rego"
        ]
    );
}

#[rstest]
#[case::parent("../x")]
#[case::parent_inside("a/../../b")]
#[case::dot("a/./b")]
#[case::double_slash("a//b")]
#[case::two_leading_slashes("//a")]
#[case::trailing_slash("a/")]
#[case::only_slash("/")]
#[case::dots_behind_dot("./../x")]
#[case::backslash("a\\b")]
#[case::drive("C:/x")]
#[case::newline("a\nb")]
#[case::escape("a\u{1b}[31m")]
#[case::decomposed("cafe\u{301}")]
#[case::right_to_left("a\u{202e}oger.b")]
#[case::zero_width("a\u{200b}")]
fn refuses_paths_that_lead_elsewhere(#[case] path: &str) {
    let error = refusal(Tar::policy().file(path, b""));
    assert!(matches!(error, BundleError::Path { .. }), "{error}");
    let error = refusal(Tar::policy().with_attributes(&[("path", path)], "harmless", b""));
    assert!(matches!(error, BundleError::Path { .. }), "{error}");
}

#[rstest]
#[case::not_utf8(b"a\xff")]
#[case::overlong_dots(b"\xc0\xae\xc0\xae/x")]
fn refuses_paths_that_are_no_text(#[case] path: &[u8]) {
    assert!(matches!(
        refusal(Tar::policy().entry(path, b'0', b"")),
        BundleError::Path { .. }
    ));
}

#[rstest]
#[case::hard_link(b'1')]
#[case::symbolic_link(b'2')]
#[case::character_device(b'3')]
#[case::block_device(b'4')]
#[case::named_pipe(b'6')]
#[case::contiguous(b'7')]
#[case::sparse(b'S')]
#[case::long_link(b'K')]
#[case::volume(b'V')]
#[case::multi_volume(b'M')]
#[case::vendor(b'Z')]
fn refuses_what_is_no_file(#[case] flag: u8) {
    let error = refusal(Tar::policy().entry(b"x", flag, b""));
    assert!(matches!(error, BundleError::EntryKind { .. }), "{error}");
}

#[rstest]
#[case::setuid(b"0004755\0")]
#[case::setgid(b"0002755\0")]
fn refuses_files_that_run_with_other_rights(#[case] mode: &[u8; 8]) {
    let mut block = header(b"x", b'0', 0);
    block[100..108].copy_from_slice(mode);
    let error = refusal(Tar::policy().raw(&seal(block)));
    assert!(matches!(error, BundleError::EntryKind { .. }), "{error}");
}

#[rstest]
#[case::same("/app/policy.rego")]
#[case::without_slash("app/policy.rego")]
#[case::with_dot("./app/policy.rego")]
#[case::case_twin("/app/Policy.rego")]
#[case::case_twin_directory("/APP/policy.rego")]
#[case::long_s("/app/policy.rego/../x")]
fn refuses_a_path_twice(#[case] path: &str) {
    let error = refusal(Tar::policy().file(path, b""));
    assert!(
        matches!(error, BundleError::Duplicate { .. } | BundleError::Path { .. }),
        "{error}"
    );
}

#[test]
fn refuses_a_file_that_is_a_directory_too() {
    for tar in [
        Tar::policy().file("/app", b""),
        Tar::policy().file("/app/policy.rego/x", b""),
        Tar::policy().entry(b"/app/policy.rego/", b'5', b""),
        Tar::policy().entry(b"/DATA.json/x/", b'5', b""),
    ] {
        assert!(matches!(refusal(tar), BundleError::FileAndDirectory { .. }));
    }
}

fn mangled(change: impl Fn(&mut [u8; 512])) -> Tar {
    let mut block = header(b"x", b'0', 0);
    change(&mut block);
    Tar::policy().raw(&seal(block))
}

#[rstest]
#[case::base_256_size(mangled(|block| block[124] = 0x80))]
#[case::signed_size(mangled(|block| block[124] = b'+'))]
#[case::size_with_a_tail(mangled(|block| block[124..136].copy_from_slice(b"000 00000001")))]
#[case::other_magic(mangled(|block| block[257] = b'U'))]
#[case::star(mangled(|block| block[508..512].copy_from_slice(b"tar\0")))]
#[case::gnu_with_times(mangled(|block| { block[257..265].copy_from_slice(b"ustar  \0"); block[345] = b'1'; }))]
#[case::name_with_a_tail(mangled(|block| block[2] = b'y'))]
#[case::checksum(Tar::policy().raw(&{ let mut block = header(b"x", b'0', 0); block[0] = b'y'; block }))]
#[case::directory_with_content(Tar::policy().entry(b"x/", b'5', b"y"))]
#[case::cut_header(Tar(Tar::policy().0[..600].to_vec()))]
#[case::pax_size(Tar::policy().with_attributes(&[("size", "1024")], "x", b"abc"))]
#[case::pax_path_twice(Tar::policy().with_attributes(&[("path", "a"), ("path", "b")], "x", b""))]
#[case::pax_empty_path(Tar::policy().with_attributes(&[("path", "")], "x", b""))]
#[case::pax_nul_in_path(Tar::policy().with_attributes(&[("path", "a\0b")], "x", b""))]
#[case::pax_link(Tar::policy().with_attributes(&[("linkpath", "a")], "x", b""))]
#[case::pax_sparse(Tar::policy().with_attributes(&[("GNU.sparse.name", "a")], "x", b""))]
#[case::pax_length(Tar::policy().entry(b"p", b'x', b"99 path=a\n").file("x", b""))]
#[case::pax_no_newline(Tar::policy().entry(b"p", b'x', b"8 path=a").file("x", b""))]
#[case::pax_for_nothing(Tar::policy().entry(b"p", b'x', b"10 path=a\n"))]
#[case::pax_twice(Tar::policy().entry(b"p", b'x', b"").entry(b"p", b'x', b"").file("x", b""))]
#[case::pax_and_gnu(Tar::policy().entry(b"p", b'x', b"").entry(b"p", b'L', b"y").file("x", b""))]
#[case::pax_global_path(Tar::policy().entry(b"p", b'g', b"10 path=a\n").file("x", b""))]
#[case::gnu_empty_name(Tar::policy().entry(b"p", b'L', b"\0").file("x", b""))]
#[case::gnu_nul_in_name(Tar::policy().entry(b"p", b'L', b"a\0b").file("x", b""))]
fn refuses_headers_that_readers_take_differently(#[case] tar: Tar) {
    let error = read(gzip(&tar.0)).unwrap_err();
    assert!(matches!(error, BundleError::Header { .. }), "{error}");
    assert!(!error.to_string().contains('\0'));
}

#[test]
fn refuses_content_that_is_cut_off() {
    let whole = Tar::policy().0;
    for length in [1, 511, 513, 600, 1025] {
        let error = read(gzip(&whole[..length])).unwrap_err();
        assert!(
            matches!(
                error,
                BundleError::Header {
                    cause: "is cut off",
                    ..
                }
            ),
            "{length}: {error}"
        );
    }
}

#[rstest]
#[case::second_member([Tar::policy().gzip(), Tar::policy().gzip()].concat())]
#[case::junk([Tar::policy().gzip(), b"junk".to_vec()].concat())]
#[case::zeros([Tar::policy().gzip(), vec![0; 512]].concat())]
#[case::behind_the_archive(gzip(&[Tar::policy().raw(&[0; 1024]).0, Tar::policy().0].concat()))]
#[case::behind_one_block(gzip(&[Tar::policy().raw(&[0; 512]).0, Tar::policy().0].concat()))]
fn refuses_bytes_after_the_end(#[case] bytes: Vec<u8>) {
    assert!(matches!(read(bytes).unwrap_err(), BundleError::TrailingBytes(_)));
}

#[rstest]
#[case::empty(vec![], "empty")]
#[case::zip(b"PK\x03\x04".to_vec(), "a zip archive")]
#[case::zstd(vec![0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd")]
#[case::tar(Tar::policy().0, "a tar archive without compression")]
#[case::json(b"{}".to_vec(), "JSON")]
#[case::rego(b"package app".to_vec(), "of an unknown format")]
fn names_what_is_no_gzip(#[case] bytes: Vec<u8>, #[case] expected: &'static str) {
    assert_eq!(read(bytes).unwrap_err(), BundleError::NotGzip { found: expected });
}

#[test]
fn damaged_gzip_is_refused_wherever_it_is_damaged() {
    let whole = Tar::policy().gzip();
    for length in [3, 12, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        let error = read(whole[..length].to_vec()).unwrap_err();
        assert!(matches!(error, BundleError::Gzip { .. }), "{length}: {error}");
    }
    let mut checksum = whole.clone();
    checksum[whole.len() - 6] ^= 1;
    assert!(matches!(read(checksum).unwrap_err(), BundleError::Gzip { .. }));
}

#[test]
fn other_bytes_than_the_verified_ones_are_a_mismatch_whatever_else_is_wrong() {
    let (good, other) = (Tar::policy().gzip(), Tar::policy().file("x.rego", b"").gzip());
    let verified = manifest(Digest::of(&good), good.len() as u64);
    let bundle = |bytes: &[u8]| {
        let content = Arc::new(Bytes(bytes.to_vec()));
        verified.bundle(content, &Limits::default(), &CancellationToken::default())
    };
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    assert!(matches!(bundle(&damaged), Err(BundleError::DigestMismatch { .. })));
    assert!(matches!(
        bundle(&vec![0; good.len()]),
        Err(BundleError::DigestMismatch { .. })
    ));
    assert!(matches!(bundle(&other), Err(BundleError::SizeMismatch { .. })));
    assert!(matches!(
        bundle(&good[..good.len() - 1]),
        Err(BundleError::SizeMismatch { .. })
    ));
    assert!(matches!(
        bundle(&[&good[..], b"x"].concat()),
        Err(BundleError::SizeMismatch { .. })
    ));
    assert!(bundle(&good).is_ok());
}

/// A store whose content changes after it was read.
#[derive(Debug)]
struct Fickle(std::sync::Mutex<Vec<Vec<u8>>>);

impl Content for Fickle {
    fn size(&self) -> u64 {
        0
    }

    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        match self.0.lock().unwrap().pop() {
            Some(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
            None => Err(io::Error::other("/var/cache/secret-path")),
        }
    }
}

#[test]
fn bytes_are_hashed_again_on_the_way_out() {
    let good = Tar::policy().gzip();
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    let long = [&good[..], b"x"].concat();
    let content = Fickle(std::sync::Mutex::new(vec![long, damaged, good.clone()]));
    let bundle = manifest(Digest::of(&good), good.len() as u64)
        .bundle(Arc::new(content), &Limits::default(), &CancellationToken::default())
        .unwrap();
    assert!(matches!(bundle.bytes(1 << 20), Err(BundleError::DigestMismatch { .. })));
    assert!(matches!(bundle.bytes(1 << 20), Err(BundleError::SizeMismatch { .. })));
    let error = bundle.bytes(1 << 20).unwrap_err();
    assert!(
        matches!(error, BundleError::Read { .. }) && !error.to_string().contains("secret"),
        "{error}"
    );
}

#[rstest]
#[case::json(b"{", "EOF")]
#[case::twice(br#"{"roots":["a"],"roots":["b"]}"#, "twice")]
#[case::case_twin(br#"{"roots":["a"],"Roots":["b"]}"#, "twice")]
#[case::array(b"[]", "invalid")]
#[case::roots(br#"{"roots":"app"}"#, "invalid type")]
#[case::rego_version(br#"{"rego_version":2}"#, "neither 0 nor 1")]
fn refuses_manifests_that_opa_or_another_reader_would_take_differently(#[case] json: &[u8], #[case] expected: &str) {
    let error = refusal(Tar::policy().file("/.manifest", json));
    assert!(
        matches!(error, BundleError::Manifest { .. }) && error.to_string().contains(expected),
        "{error}"
    );
}

#[rstest]
#[case::same(r#"["app","app"]"#)]
#[case::below(r#"["app","app/x"]"#)]
#[case::slashes(r#"["/app/","app"]"#)]
#[case::everything(r#"["","app"]"#)]
fn refuses_overlapping_roots(#[case] roots: &str) {
    let error = refusal(Tar::policy().file("/.manifest", format!(r#"{{"roots":{roots}}}"#).as_bytes()));
    assert!(matches!(error, BundleError::OverlappingRoots { .. }), "{error}");
}

#[rstest]
#[case::inside("/app/x/data.json", true)]
#[case::root_itself("/app/data.json", true)]
#[case::above("/data.yaml", true)]
#[case::sibling("/application/data.json", false)]
#[case::elsewhere("/other/data.yaml", false)]
fn data_lies_inside_the_roots(#[case] path: &str, #[case] accepted: bool) {
    let tar = Tar::policy()
        .file(path, b"{}")
        .file("/.manifest", br#"{"roots":["app"]}"#);
    assert_eq!(read(tar.gzip()).is_ok(), accepted);
}

#[test]
fn refuses_delta_bundles_second_manifests_and_bundles_of_nothing() {
    assert_eq!(refusal(Tar::policy().file("/patch.json", b"{}")), BundleError::Delta);
    let error = refusal(Tar::policy().file("/app/x.manifest", b"{}"));
    assert!(matches!(error, BundleError::SecondManifest { .. }));
    assert!(matches!(refusal(Tar::default()), BundleError::Empty { .. }));
    assert_snapshot!(refusal(Tar::default().file("bundle.tar.gz", b"")), @"the bundle holds no file that OPA reads (first is 'bundle.tar.gz')");
}

fn zeros(count: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    io::copy(&mut io::repeat(0).take(count), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn many_entries() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for number in 0..1_000_000 {
        encoder
            .write_all(&header(format!("{number}").as_bytes(), b'0', 0))
            .unwrap();
    }
    encoder.finish().unwrap()
}

fn huge(flag: u8) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&header(b"x", flag, 1 << 30)).unwrap();
    io::copy(&mut io::repeat(b'1').take(1 << 28), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[rstest]
#[case::zeros(zeros(1 << 28))]
#[case::a_million_entries(many_entries())]
#[case::large_file(huge(b'0'))]
#[case::large_attributes(huge(b'x'))]
#[case::large_global_attributes(huge(b'g'))]
#[case::large_long_name(huge(b'L'))]
#[case::deep_path(Tar::policy().with_attributes(&[("path", &"a/".repeat(10_000))], "x", b"").gzip())]
#[case::long_path(Tar::policy().with_attributes(&[("path", &"a".repeat(513))], "x", b"").gzip())]
#[case::deep_short_path(Tar::policy().with_attributes(&[("path", &"a/".repeat(33))], "x", b"").gzip())]
#[case::large_manifest(Tar::policy().file(".manifest", &vec![b' '; 2 << 20]).gzip())]
fn bombs_are_refused_at_a_limit(#[case] bytes: Vec<u8>) {
    let error = read(bytes).unwrap_err();
    assert!(
        matches!(error, BundleError::Limit { .. } | BundleError::Path { .. }),
        "{error}"
    );
}

#[test]
fn every_limit_is_one() {
    let refused = |limits: Limits| {
        let error = read_within(Tar::policy().file("a/b/c.rego", &[b'x'; 4000]).gzip(), &limits).unwrap_err();
        assert!(matches!(error, BundleError::Limit { .. }), "{error}");
    };
    let all = Limits::default();
    refused(Limits {
        compressed_bytes: 10,
        ..all
    });
    refused(Limits {
        expanded_bytes: 4000,
        ..all
    });
    refused(Limits { entries: 2, ..all });
    refused(Limits { path_bytes: 10, ..all });
    refused(Limits { path_depth: 2, ..all });
    let compressible = Tar::policy().file("a.rego", &vec![b'x'; 2 << 20]).gzip();
    assert!(read_within(compressible.clone(), &Limits { ratio: 10, ..all }).is_err());
    assert!(read_within(compressible, &Limits { ratio: 10_000, ..all }).is_ok());
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(bytes.clone()).is_err());
        let _ = read(gzip(&bytes));
    }

    #[test]
    fn never_panics_on_damaged_archives(position in any::<usize>(), byte in any::<u8>()) {
        let mut tar = Tar::policy().with_attributes(&[("path", "a/b"), ("size", "2")], "x", b"ab").raw(&[0; 1024]).0;
        let position = position % tar.len();
        tar[position] = byte;
        let _ = read(gzip(&tar));
    }
}
