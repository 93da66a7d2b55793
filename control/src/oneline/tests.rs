//! From flags to a configuration, on a machine of invented facts.

use clap::Parser;

use super::OneLine;
use crate::{
    cli::dataplane::Cli,
    config::{self, ConfigError, Plan, exit_code, tests::fake::FakeMachine},
};

fn written(arguments: &[&str]) -> Result<OneLine, Vec<ConfigError>> {
    let cli = Cli::try_parse_from([&["dataplane"], arguments].concat()).expect("right flags");
    OneLine::new(&cli, &FakeMachine).map(|line| line.expect("no configuration is named"))
}

fn plan(arguments: &[&str]) -> Result<Plan, Vec<ConfigError>> {
    let cli = Cli::try_parse_from([&["dataplane"], arguments].concat()).expect("right flags");
    let line = written(arguments)?;
    let config = line.config()?;
    Plan::new(&config, &cli.overrides(), &FakeMachine).map_err(|errors| line.blame(errors))
}

/// Lines without comments.
fn bare(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn a_file_to_lc0() {
    let line = written(&[
        "-r",
        "sample.pcapng",
        "--allow",
        "replies=true,proto=tcp,ports=80,443",
    ]);
    let line = line.expect("right");
    assert_eq!(
        line.text,
        "\
[ports.file]
kind = \"pcap\"
path = \"sample.pcapng\"
# as it was captured, for whoever watches; \"top\" is as fast as it goes
pace = \"original\"

[ports.lc0]
kind = \"tap\"
# a file does not say how long its frames are; longer ones than this are dropped
mtu = 9000
# nothing is played until something listens there, or this time has passed
wait_for_consumer = \"30s\"

[policies.allow]
allow = [
  { proto = \"tcp\", ports = \"80,443\", replies = true },
]

[[pipelines]]
from = [\"file\"]
policy = \"allow\"
to = [\"lc0\"]
"
    );
    assert_eq!(line.notes, [""; 0]);
}

/// As tcpdump takes it.
#[test]
fn any_interface() {
    let line = written(&["-i", "any", "--to", "x.pcapng"]).expect("right");
    assert!(
        line.text.contains("[ports.any]\n"),
        "a port of its own\n{}",
        line.text
    );
    for wanted in ["kind = \"af_packet\"", "interface = \"any\""] {
        assert!(bare(&line.text).contains(&wanted), "{}", line.text);
    }
    assert_eq!(line.notes.len(), 1);
    assert!(line.notes[0].starts_with("-i any: "), "{:?}", line.notes);
}

#[test]
fn every_flag() {
    let all = [
        "-r",
        "sample.pcapng",
        "--to",
        "lc0",
        "--to",
        "veth1",
        "--to",
        "taken",
        "--netns",
        "ids",
        "--pace",
        "2.5x",
        "--allow",
        "proto=udp",
        "--allow",
        "{ proto = \"icmp\" }",
        "--cores",
        "1,3",
        "--socket",
        "/run/s",
    ];
    let line = written(&all).expect("right");
    let wanted = [
        "[engine]",
        "cores = \"1,3\"",
        "[control]",
        "socket = \"/run/s\"",
        "[ports.file]",
        "kind = \"pcap\"",
        "path = \"sample.pcapng\"",
        "pace = \"original\"",
        "speed = 2.5",
        "[ports.lc0]",
        "kind = \"tap\"",
        "netns = \"ids\"",
        "mtu = 9000",
        "wait_for_consumer = \"30s\"",
        "[ports.veth1]",
        "kind = \"af_xdp\"",
        "interface = \"veth1\"",
        "netns = \"ids\"",
        "[ports.taken]",
        "kind = \"tap\"",
        "netns = \"ids\"",
        "mtu = 9000",
        "wait_for_consumer = \"30s\"",
        "[policies.allow]",
        "allow = [",
        "  { proto = \"udp\" },",
        "  { proto = \"icmp\" },",
        "]",
        "[[pipelines]]",
        "from = [\"file\"]",
        "policy = \"allow\"",
        "to = [\"lc0\", \"veth1\", \"taken\"]",
    ];
    assert_eq!(bare(&line.text), wanted, "{}", line.text);
}

/// Flags, and lines that are or (with !) are not in the configuration.
#[test]
fn what_is_chosen() {
    for (arguments, lines) in [
        (
            &["-r", "a.pcap", "--to", "-"][..],
            &["pace = \"top\"", "[ports.stdout]", "path = \"-\""][..],
        ),
        (
            &["-r", "a.pcap", "--to", "b.pcap.zst"],
            &["pace = \"top\"", "[ports.capture]", "compress = \"zstd\""],
        ),
        (
            &["-r", "a.pcap", "--to", "b.pcap", "--to", "lc0"],
            &["pace = \"original\"", "!compress = \"zstd\""],
        ),
        (
            &["-r", "a.pcap", "--to", "a.cap", "--to", "b.cap"],
            &["to = [\"capture\", \"capture-2\"]"],
        ),
        (
            &["-r", "a.pcap", "--pace", "10000pps"],
            &["pace = { pps = 10000 }"],
        ),
        (
            &["-r", "a.pcap", "--pace", "1.5mbps", "--to", "-"],
            &["pace = { mbps = 1.5 }"],
        ),
        (
            &["-r", "a.pcap", "--pace", "1x", "--to", "-"],
            &["pace = \"original\"", "!speed = 1.0"],
        ),
        (
            &["-r", "-"],
            &["[ports.stdin]", "path = \"-\"", "pace = \"original\""],
        ),
        (
            &["-r", "a.pcap", "--to", "file"],
            &["[ports.file-2]", "name = \"file\""],
        ),
        (
            &["-r", "a.pcap", "--to", "lc.0"],
            &["[ports.lc-0]", "name = \"lc.0\""],
        ),
        (
            &["-r", "a.pcap", "--to", "eth0"],
            &["interface = \"eth0\"", "pace = \"original\""],
        ),
        // An interface of this name in another namespace is another.
        (
            &["-r", "a.pcap", "--to", "eth0", "--netns", "ids"],
            &["kind = \"tap\"", "!interface = \"eth0\""],
        ),
        (
            &["-r", "a.pcap", "--to", "veth1"],
            &["kind = \"tap\"", "!interface = \"veth1\""],
        ),
        (
            &["-i", "eth0"],
            &[
                "kind = \"af_xdp\"",
                "interface = \"eth0\"",
                "!wait_for_consumer = \"30s\"",
                "!mtu = 9000",
            ],
        ),
        (
            &["-i", "addr0"],
            &["kind = \"af_packet\"", "interface = \"addr0\""],
        ),
        (&["-i", "gw0"], &["kind = \"af_packet\""]),
        (&["-i", "jumbo0"], &["mtu = 3000", "!slots"]),
        (&["-i", "lo"], &["mtu = 65521", "slots = 1024"]),
        (
            &["-i", "eth0", "--to", "eth0", "--netns", "ids"],
            &["[ports.eth0-2]", "name = \"eth0\""],
        ),
    ] {
        let line = written(arguments).expect("right");
        for wanted in lines {
            match wanted.strip_prefix('!') {
                Some(line_not) => assert!(
                    !line.text.contains(line_not),
                    "{line_not} in\n{}",
                    line.text
                ),
                None => assert!(
                    bare(&line.text).contains(wanted),
                    "no {wanted} in\n{}",
                    line.text
                ),
            }
        }
    }
}

/// docs/quick-start.md shows what a line is printed as; its `eth0` has an address.
#[test]
fn the_quick_start_shows_what_is_printed() {
    let page = include_str!("../../../docs/quick-start.md");
    let (_, block) = page.split_once("\n```toml\n").expect("a configuration");
    let (shown, _) = block.split_once("```\n").expect("its end");
    let rule = "proto=tcp,ports=443,replies";
    let typed = format!("    dataplane -i eth0 --allow '{rule}' --print-config > dp.toml\n");
    assert!(page.contains(&typed), "{typed}");
    let line = written(&["-i", "addr0", "--allow", rule]).expect("right");
    assert_eq!(line.text.replace("addr0", "eth0"), shown);
}

/// Why an interface is taken in its way is said with the plan and stands in the configuration.
#[test]
fn the_choice_for_an_interface_is_said() {
    for (interface, words) in [
        ("eth0", "no address and no default route"),
        ("addr0", "the address 192.0.2.1/24, so"),
        ("gw0", "the address 192.0.2.2/24 and the default route"),
    ] {
        let line = written(&["-i", interface]).expect("right");
        let [note] = line.notes.as_slice() else {
            panic!("one line about {interface}: {:?}", line.notes);
        };
        assert!(
            note.starts_with(&format!("-i {interface}: ")) && note.contains(words),
            "{note}"
        );
        assert!(line.text.contains(words), "{}", line.text);
    }
}

/// Errors name what was typed.
#[test]
fn what_is_wrong_is_told_by_its_flag() {
    for (arguments, code, flag, fragments) in [
        (
            &["-r", "x.pcap"][..],
            2,
            "-r x.pcap: ",
            &["does not exist"][..],
        ),
        (
            &["-r", "secret.pcap"],
            3,
            "-r secret.pcap: ",
            &["may not be read"],
        ),
        (&["-r", "folder"], 2, "-r folder: ", &["is a directory"]),
        (&["-i", "et0"], 3, "-i et0: ", &["\"et0\"", "\"eth0\""]),
        (
            &["-i", "sixteen-bytes-16"],
            2,
            "-i sixteen-bytes-16: ",
            &["16 bytes", "15"],
        ),
        (&["-i", "down0"], 3, "-i down0: ", &["ip link set down0 up"]),
        (&["-i", "xdp0"], 3, "-i xdp0: ", &["XDP program"]),
        (
            &["-i", "eth0", "--to", "eth0"],
            2,
            "--to eth0: ",
            &["-i eth0", "name another"],
        ),
        (
            &["-i", "va", "--to", "vb"],
            2,
            "--to vb: ",
            &["two ends of one veth pair"],
        ),
        (
            &["-i", "eth0", "--cores", "0-1", "--to", "one"],
            2,
            "--to one: ",
            &["--cores"],
        ),
        (
            &["-i", "eth0", "--to", "lc0", "--to", "lc0"],
            2,
            "--to lc0: ",
            &["twice"],
        ),
        (
            &["-r", "sample.pcapng", "--to", "taken"],
            3,
            "--to taken: ",
            &["device \"taken\" already", "(--to NAME)"],
        ),
        (
            &["-r", "sample.pcapng", "--to", "addr0"],
            3,
            "--to addr0: ",
            &["192.0.2.1/24", "force = true", "--print-config"],
        ),
        (
            &["-r", "sample.pcapng", "--netns", "nowhere"],
            3,
            "--netns nowhere: ",
            &["ip netns add nowhere"],
        ),
        (
            &["-r", "sample.pcapng", "--netns", "a/b"],
            2,
            "--netns a/b: ",
            &["ip netns"],
        ),
        (
            &["-r", "sample.pcapng", "--to", "-", "--netns", "ids"],
            2,
            "--netns ids: ",
            &["leave it out"],
        ),
        (
            &["-r", "sample.pcapng", "--pace", "0pps"],
            2,
            "--pace 0pps: ",
            &["0.001"],
        ),
        (
            &["-r", "sample.pcapng", "--pace", "0x"],
            2,
            "--pace 0x: ",
            &["0.001"],
        ),
        (
            &["-r", "sample.pcapng", "--cores", "9"],
            3,
            "--cores: ",
            &["core 9 is not online"],
        ),
        (
            &["-r", "sample.pcapng", "--socket", &"s".repeat(108)],
            2,
            "--socket s",
            &["107"],
        ),
    ] {
        let errors = plan(arguments).expect_err(flag);
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let lines = lines.join("\n");
        assert_eq!(exit_code(&errors), code, "{lines}");
        let right =
            |line: &str| line.starts_with(flag) && fragments.iter().all(|f| line.contains(f));
        assert!(lines.lines().any(right), "{flag} {fragments:?} in\n{lines}");
        for hidden in ["command line", "ports.", "pipelines["] {
            assert!(!lines.contains(hidden), "{hidden} in\n{lines}");
        }
    }
}

/// What is printed, saved and run does exactly the same.
#[test]
fn what_is_printed_is_the_same_plan() {
    for arguments in [
        &["-r", "sample.pcapng"][..],
        &[
            "-r",
            "sample.pcapng",
            "--allow",
            "proto=tcp,to=10.0.0.0/8",
            "--pace",
            "3x",
            "--cores",
            "2",
        ],
        &[
            "-r",
            "sample.pcapng",
            "--to",
            "eth0",
            "--to",
            "lc1",
            "--pace",
            "100pps",
        ],
        &["-i", "eth1", "--to", "eth0", "--cores", "0-1"],
        &["-i", "jumbo0", "--netns", "ids"],
    ] {
        let direct = plan(arguments).unwrap_or_else(|errors| panic!("{errors:?}"));
        let text = written(arguments).expect("right").text;
        let config = config::parse(&text, "dp.toml").expect("accepted");
        let saved =
            Plan::new(&config, &config::Overrides::default(), &FakeMachine).expect("planned");
        assert_eq!(direct, saved, "{text}");
    }
}
