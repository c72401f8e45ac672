//! EthUDP's command line. Options have one dash and names of any length, so they are parsed by hand.

use std::ffi::OsString;
use std::net::IpAddr;

use privsep::ipc::{Cipher, Policy, Rules, Secret};

use super::Command;
use crate::Error;
use crate::log::{self, Level};
use crate::service::files;
use crate::supervise::policy::{Missing, OnSignal, Place, Policies, TicksOver};
use crate::tunnel::cipher::{self, DEFAULT_KEY};
use crate::tunnel::{self, Classic, Endpoint, Path, Port, Remote, Tunnel, address, advice, bounds, names, vlan_map};

/// Help text.
pub const HELP: &str = "\
Usage: ethudp -e [options] LOCAL-IP PORT REMOTE-IP PORT INTERFACE [SLAVE]
       ethudp -i [options] LOCAL-IP PORT REMOTE-IP PORT ADDRESS MASK [SLAVE]
       ethudp -b [options] LOCAL-IP PORT REMOTE-IP PORT BRIDGE [SLAVE]
       ethudp -t|-u [options] LOCAL-IP PORT REMOTE-IP PORT INTERFACE [FILTER...]
Modes:
  -e            raw: frames of an interface that exists
  -i            tap: a TAP interface with an address
  -b            bridge: a TAP interface that joins a bridge
  -t            mirror: a one-way copy of the frames that a pcap filter selects
  -u            mirror-udp: the same, only the payload of UDP datagrams
SLAVE is a second path, LOCAL-IP PORT REMOTE-IP PORT, used while the first is down.
REMOTE-IP 0.0.0.0 or ::, or REMOTE-PORT 0, is learned from received datagrams (a peer behind NAT).
Options:
  -enc CIPHER   xor, aes-128, aes-192 or aes-256; aes-256-ethudp-2023 to a peer that runs
                EthUDP v20230202 or older with aes-256, which is AES-192 there
  -k KEY        key; without -enc the cipher is aes-128
  -p PASSWORD   sent to a fixed peer; a peer behind NAT must send it
  -lz4 0..9     compression; 0 is off
  -mtu M        send datagrams over M - 28 bytes as two fragments; 1036 to 1500
  -mss N        lower the MSS of TCP connections to N
  -map FILE     VLAN map: a local and a remote id on each line (also -m)
  -dev NAME     name of the TAP interface
  -n NAME       name of the tunnel, prefix in the system log
  -c COMMAND    run COMMAND once all interfaces and sockets are open
  -x SECONDS    replace the worker after this time; with -d, end
  -d            stay in the foreground, log to standard error
  -q            log only warnings and errors; --verbose logs more
  -r            only read the local side: send, and drop what is received
  -w            only write the local side
  -loopcheck    never forward the tunnel's own datagrams; -r switches it on
  -noloopcheck  switch it off
  -B            not supported: `make bench-micro` in the source measures cipher and compression
  -l BYTES      ignored; size of a frame for -B
  -nopromisc    leave the interface's promiscuous mode alone (-e)
  --user NAME   unprivileged user that all processes change to when root starts them (default: ethudp)
";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Raw,
    Tap,
    Bridge,
    Mirror { udp: bool },
}

impl Mode {
    /// Option that selects the mode.
    fn option(self) -> &'static str {
        match self {
            Self::Raw => "-e",
            Self::Tap => "-i",
            Self::Bridge => "-b",
            Self::Mirror { udp: false } => "-t",
            Self::Mirror { udp: true } => "-u",
        }
    }
}

/// Options as given on the command line.
#[allow(clippy::struct_excessive_bools)] // Each is an option of the command line.
#[derive(Default)]
struct Options {
    mode: Option<Mode>,
    cipher: Option<Cipher>,
    key: Option<Secret>,
    password: Option<Secret>,
    lz4: u8,
    fragment_mtu: Option<u16>,
    mss: Option<u16>,
    vlan_map: Vec<(u16, u16)>,
    device: Option<String>,
    name: Option<String>,
    run: Option<String>,
    exit_after: Option<u64>,
    user: Option<String>,
    foreground: bool,
    read_only: bool,
    write_only: bool,
    loop_check: bool,
    no_promiscuous: bool,
}

/// Parses the arguments after the program's name. Adds the positions of secrets among them to `secrets`.
pub fn parse(arguments: &[OsString], secrets: &mut Vec<usize>) -> Result<Command, Error> {
    // Addresses and names are text. EthUDP accepts keys of any bytes, but keys other than text have never been seen.
    let text = |argument: &OsString| {
        let argument = argument.clone().into_string();
        argument.map_err(|bytes| Error::usage(format!("argument {}: not UTF-8 text", bytes.display())))
    };
    let mut rest = arguments.iter().map(text).collect::<Result<Vec<_>, _>>()?.into_iter().enumerate();
    let mut options = Options::default();
    let mut operands = Vec::new();
    while let Some((position, argument)) = rest.next() {
        if operands.is_empty() && matches!(argument.as_str(), "-k" | "-p") && position + 1 < arguments.len() {
            secrets.push(position + 1);
        }
        // As in EthUDP, options come first. After the first operand, an argument with a dash is an operand.
        if !operands.is_empty() || !argument.starts_with('-') {
            operands.push(argument);
        } else if argument == "-h" {
            return Ok(Command::Text(HELP.into()));
        } else {
            option(&mut options, &argument, &mut rest.by_ref().map(|(_, argument)| argument))?;
        }
    }
    let policies = policies(options.foreground);
    let tunnel = tunnel(options, &operands).map_err(Error::Usage)?;
    advice::refuse(&tunnel).map_err(|(_, _, message)| Error::Usage(message))?;
    Ok(Command::Run(Box::new(tunnel), policies))
}

/// Policies that users of EthUDP expect.
fn policies(foreground: bool) -> Policies {
    let (place, ticks_over) =
        if foreground { (Place::Foreground, TicksOver::End) } else { (Place::Background, TicksOver::Replace) };
    Policies {
        place,
        missing: Missing::End,
        on_hangup: OnSignal::LogStatistics,
        on_user: OnSignal::ResetCounts,
        ticks_over,
    }
}

fn option(options: &mut Options, name: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Error> {
    let mut operand = || rest.next().ok_or_else(|| Error::usage(format!("option {name}: operand is missing")));
    match name {
        "-e" => set_mode(options, Mode::Raw)?,
        "-i" => set_mode(options, Mode::Tap)?,
        "-b" => set_mode(options, Mode::Bridge)?,
        "-t" => set_mode(options, Mode::Mirror { udp: false })?,
        "-u" => set_mode(options, Mode::Mirror { udp: true })?,
        "-d" => options.foreground = true,
        "-q" => log::least(Level::Warning),
        "--verbose" => log::least(Level::Debug),
        "-nopromisc" => options.no_promiscuous = true,
        "-enc" => options.cipher = Some(cipher::parse("option -enc", &operand()?).map_err(Error::Usage)?),
        "-k" => options.key = Some(Secret::new(operand()?.into_bytes())),
        "-dev" => options.device = Some(names::interface("option -dev", &operand()?).map_err(Error::Usage)?),
        "-n" => options.name = Some(names::tunnel(&operand()?).map_err(Error::Usage)?),
        "--user" => options.user = Some(operand()?),
        "-r" => (options.read_only, options.loop_check) = (true, true),
        "-w" => options.write_only = true,
        "-loopcheck" => options.loop_check = true,
        "-noloopcheck" => options.loop_check = false,
        "-c" => options.run = Some(operand()?),
        "-B" => {
            return Err(Error::usage(
                "option -B: not supported; to measure this machine run `make bench-micro` in the source of ethudp",
            ));
        }
        "-l" | "-p" | "-lz4" | "-mtu" | "-mss" | "-map" | "-m" | "-x" => {
            wire_option(options, name, operand()?).map_err(Error::Usage)?;
        }
        _ => {
            return Err(Error::usage(format!("option {name:?}: unknown; `ethudp -h` lists the options")));
        }
    }
    Ok(())
}

fn set_mode(options: &mut Options, mode: Mode) -> Result<(), Error> {
    match options.mode.replace(mode) {
        Some(other) if other != mode => {
            let (first, second) = (other.option(), mode.option());
            Err(Error::usage(format!("options {first} and {second}: only one mode is possible; remove one")))
        }
        _ => Ok(()),
    }
}

/// Parses an option whose operand has bounds.
fn wire_option(options: &mut Options, name: &str, value: String) -> Result<(), String> {
    let what = format!("option {name}");
    let small = |bounds| bounds::number(&what, &value, bounds).map(|number| u16::try_from(number).unwrap_or(u16::MAX));
    match name {
        "-p" => options.password = Some(cipher::password(&what, value.into_bytes())?),
        "-lz4" => options.lz4 = u8::try_from(small(bounds::LZ4)?).unwrap_or(u8::MAX),
        "-mtu" => options.fragment_mtu = Some(small(bounds::FRAGMENT_MTU)?),
        "-l" => drop(small(bounds::FRAME)?),
        "-mss" => options.mss = Some(small(0..=65535)?).filter(|&mss| mss > 0),
        "-x" => options.exit_after = Some(bounds::number(&what, &value, 0..=u64::from(u32::MAX))?).filter(|&n| n > 0),
        _ => {
            let text = files::text(value.as_ref()).map_err(|error| format!("VLAN map {value}: {error}"))?.0;
            options.vlan_map = vlan_map::parse(&format!("VLAN map {value}"), &text)?;
        }
    }
    Ok(())
}

fn tunnel(options: Options, operands: &[String]) -> Result<Tunnel, String> {
    let mode = options.mode.ok_or("no mode given: add -e, -i, -b, -t or -u; `ethudp -h` explains them")?;
    let names: &[&str] = match mode {
        Mode::Raw | Mode::Mirror { .. } => &["INTERFACE"],
        Mode::Tap => &["ADDRESS", "MASK"],
        Mode::Bridge => &["BRIDGE"],
    };
    let all = [&["LOCAL-IP", "LOCAL-PORT", "REMOTE-IP", "REMOTE-PORT"], names].concat();
    let behind = operands.iter().find(|operand| operand.starts_with('-') && !matches!(mode, Mode::Mirror { .. }));
    if let Some(option) = behind {
        return Err(format!("option {option:?} after the operands: move it before LOCAL-IP"));
    }
    let [local, local_port, remote, remote_port, own @ ..] = operands else { return Err(missing(&all, operands)) };
    if own.len() < names.len() {
        return Err(missing(&all, operands));
    }
    let mut paths = vec![path(local, local_port, remote, remote_port)?];
    match &operands[all.len()..] {
        // A filter, in one argument or in several.
        _ if matches!(mode, Mode::Mirror { .. }) => {}
        [] => {}
        [local, local_port, remote, remote_port] => paths.push(path(local, local_port, remote, remote_port)?),
        [_, _] | [_, _, _] => return Err(format!("slave path: {}", missing(&all[..4], &operands[all.len()..]))),
        [.., last] => {
            let (option, needed) = (mode.option(), all.join(" "));
            return Err(format!(
                "unexpected operand {last:?}: mode {option} takes {needed}, and for a slave path {}",
                all[..4].join(" ")
            ));
        }
    }
    let port = port(mode, &options, own)?;
    let (cipher, key) = cipher_and_key(options.cipher, options.key)?;
    let name = options.name.unwrap_or_else(|| match &port {
        Port::Tap { bridge: Some(bridge), .. } => bridge.clone(),
        Port::Tap { name: Some(name), .. } => name.clone(),
        Port::Tap { .. } => format!("port-{}", paths[0].local.port),
        Port::Raw { interface, .. } | Port::Mirror { interface, .. } => interface.clone(),
    });
    let password = options.password.unwrap_or_default();
    let classic =
        Classic { cipher, key, password, lz4: options.lz4, fragment_mtu: options.fragment_mtu, keepalive_ms: None };
    let rules = Rules {
        send: !options.write_only,
        // A mirror only reads, but does not switch the loop check on.
        receive: !options.read_only && !matches!(mode, Mode::Mirror { .. }),
        loop_check: options.loop_check,
        mss: options.mss.map(|mss| (mss, mss)),
        vlan_map: options.vlan_map,
        ..Rules::default()
    };
    let (run, exit_after, user) = (options.run, options.exit_after, options.user);
    Ok(Tunnel {
        name,
        port,
        paths,
        policy: Policy::Failover,
        wire: tunnel::Wire::Classic(classic),
        rules,
        auto_mss: false,
        require_confinement: false,
        repair: tunnel::Repair::default(),
        run,
        exit_after,
        user,
    })
}

fn missing(all: &[&str], operands: &[String]) -> String {
    format!("operand {} is missing; required are {}", all[operands.len().min(all.len() - 1)], all.join(" "))
}

fn path(local: &str, local_port: &str, remote: &str, remote_port: &str) -> Result<Path, String> {
    let local = Endpoint { host: local.into(), port: address::port("local port", local_port)? };
    let port = if remote_port == "0" { 0 } else { address::port("remote port", remote_port)? };
    if local.host.is_empty() || remote.is_empty() {
        return Err("address \"\": must be an IP address or a name".into());
    }
    address::host("local address", &local.host)?;
    address::host("remote address", remote)?;
    Ok(Path {
        local,
        remote: Remote::classic(remote, port),
        device: None,
        mark: None,
        mtu: None,
        runs: true,
        weight: 1,
    })
}

fn port(mode: Mode, options: &Options, own: &[String]) -> Result<Port, String> {
    let name = options.device.clone();
    Ok(match mode {
        Mode::Raw => {
            Port::Raw { interface: names::interface("interface", &own[0])?, promiscuous: !options.no_promiscuous }
        }
        Mode::Mirror { udp } => {
            let interface = names::interface("interface", &own[0])?;
            Port::Mirror { interface, filter: own[1..].join(" "), udp }
        }
        Mode::Tap => {
            let address: IpAddr =
                own[0].parse().map_err(|_| format!("address {:?}: must be an IPv4 or IPv6 address", own[0]))?;
            let addresses = vec![(address, address::prefix(address, &own[1])?)];
            Port::Tap { name, addresses, interface_mtu: None, bridge: None, groups: 0, follow: false }
        }
        Mode::Bridge => {
            let bridge = Some(names::interface("bridge", &own[0])?);
            Port::Tap { name, addresses: Vec::new(), interface_mtu: None, bridge, groups: 0, follow: false }
        }
    })
}

/// Cipher and key by EthUDP's rules: a key without a cipher selects AES-128, a cipher without a key or with an empty key uses the
/// default key. An empty key alone means clear text in EthUDP; here it is an error.
fn cipher_and_key(cipher: Option<Cipher>, key: Option<Secret>) -> Result<(Cipher, Secret), String> {
    let given = key.map(|key| key.expose().to_vec());
    match (cipher, given) {
        (None | Some(Cipher::None), None) => Ok((Cipher::None, Secret::default())),
        (Some(Cipher::None), Some(_)) => {
            Err("option -k: not valid with -enc none; remove -k or choose a cipher".into())
        }
        (None, Some(key)) => Ok((Cipher::Aes128, cipher::key("option -k", key)?)),
        (Some(cipher), Some(key)) if !key.is_empty() => Ok((cipher, cipher::key("option -k", key)?)),
        (Some(cipher), _) => Ok((cipher, Secret::new(DEFAULT_KEY.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Tunnel, String> {
        let arguments: Vec<_> = line.split(' ').map(|word| OsString::from(word.trim_matches('\''))).collect();
        match parse(&arguments, &mut Vec::new()) {
            Ok(Command::Run(tunnel, _)) => Ok(*tunnel),
            Ok(_) => Err("no tunnel".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn classic_modes_parse() {
        let raw = run("-e -nopromisc 192.0.2.1 6000 192.0.2.2 6001 eth1").unwrap();
        assert!(matches!(&raw.port, Port::Raw { interface, promiscuous: false } if interface == "eth1"));
        let remote = Endpoint { host: "192.0.2.2".into(), port: 6001 };
        assert_eq!((raw.name.as_str(), &raw.paths[0].remote), ("eth1", &Remote::Fixed(remote)));
        let tap = run("-d -i -dev eu0 192.0.2.1 6000 peer.example 6000 10.8.0.1 24").unwrap();
        let Port::Tap { name, addresses, bridge: None, .. } = &tap.port else { panic!("{tap:?}") };
        assert_eq!((name.as_deref(), addresses[0].1, tap.name.as_str()), (Some("eu0"), 24, "eu0"));
        let bridge = run("-b -n office 192.0.2.1 6000 192.0.2.2 6000 br0").unwrap();
        assert_eq!((bridge.port.mode(), bridge.name.as_str()), ("bridge", "office"));
        assert_eq!(run("-i 192.0.2.1 6000 192.0.2.2 6000 10.8.0.1 24").unwrap().name, "port-6000");
    }

    #[test]
    fn ciphers_and_keys() {
        let with = |options: &str| {
            run(&format!("-e {options}1.2.3.4 1 1.2.3.5 1 eth1"))
                .map(|t| t.classic().map(|c| (c.cipher, c.key.clone())).unwrap())
        };
        let secret = |text: &str| Secret::new(text.into());
        assert_eq!(with(""), Ok((Cipher::None, Secret::default())));
        assert_eq!(with("-k abc "), Ok((Cipher::Aes128, secret("abc"))));
        assert_eq!(with("-enc xor "), Ok((Cipher::Xor, secret("123456"))));
        assert_eq!(with("-k '' -enc aes-256 "), Ok((Cipher::Aes256, secret("123456"))));
        let released = with("-k abc -enc aes-256-ethudp-2023 ");
        assert_eq!(released, Ok((Cipher::Aes256Ethudp2023, secret("abc"))));
        assert!(with("-k '' ").unwrap_err().contains("empty key"));
        assert!(with("-enc aes-512 ").unwrap_err().contains("\"aes-512\": unknown cipher"));
    }

    #[test]
    fn errors_name_value_and_remedy() {
        for (line, words) in [
            ("-e -frob 1.2.3.4 1 1.2.3.5 1 eth1", "\"-frob\": unknown"),
            ("-e -enc", "operand is missing"),
            ("-enc xor -B -l 1000", "option -B: not supported; to measure this machine run `make bench-micro`"),
            ("-e 1.2.3.4 1 1.2.3.5 1", "INTERFACE is missing"),
            ("-i 1.2.3.4 1 1.2.3.5 1 10.8.0.1", "MASK is missing"),
            ("-e 1.2.3.4", "LOCAL-PORT is missing"),
            ("-e", "LOCAL-IP is missing"),
            ("-d", "no mode given"),
            ("-e 1.2.3.4 0 1.2.3.5 1 eth1", "local port \"0\": must be a number from 1 to 65535"),
            ("-i 1.2.3.4 1 1.2.3.5 1 10.8.0.1 33", "mask \"33\""),
            ("-i 1.2.3.4 1 1.2.3.5 1 10.8.0.300 24", "address \"10.8.0.300\""),
            ("-e 1.2.3.4 1 1.2.3.5 1 an-interface-name", ": 17 bytes; must be 1 to 15"),
            ("-e -lz4 10 1.2.3.4 1 1.2.3.5 1 eth1", "option -lz4 \"10\": must be a number from 0 to 9"),
            ("-e -mtu 1035 1.2.3.4 1 1.2.3.5 1 eth1", "from 1036 to 1500"),
            ("-e -mss 70000 1.2.3.4 1 1.2.3.5 1 eth1", "option -mss \"70000\""),
            ("-e -p '' 1.2.3.4 1 1.2.3.5 1 eth1", "empty password"),
            ("-e -map /none 1.2.3.4 1 1.2.3.5 1 eth1", "VLAN map /none: No such file"),
            ("-e 1.2.3.4 1 1.2.3.5 1 eth1 1.2.3.4 2 1.2.3.5", "slave path: operand REMOTE-PORT is missing"),
            (
                "-e 1.2.3.4 1 1.2.3.5 1 eth1 24",
                "unexpected operand \"24\": mode -e takes LOCAL-IP LOCAL-PORT REMOTE-IP",
            ),
            ("-i 1.2.3.4 1 1.2.3.5 1 10.8.0.1 24 1.2.3.4 2 1.2.3.5 2 x", "unexpected operand \"x\": mode -i takes"),
            ("-i -e 1.2.3.4 1 1.2.3.5 1 eth1", "options -i and -e: only one mode is possible"),
            ("-e 192.0.2.300 1 1.2.3.5 1 eth1", "local address \"192.0.2.300\": not an IPv4"),
            ("-e 1.2.3.4 1 2001:db8::x 1 eth1", "remote address \"2001:db8::x\": not an IPv6"),
            ("-e -l 10000 1.2.3.4 1 1.2.3.5 1 eth1", "option -l \"10000\": must be a number from 1 to 9234"),
        ] {
            let error = run(line).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{line}: {error}");
        }
    }
}
