//! What an auditor has to read to know the helper: how much it is, and what it is linked with.

mod documents;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::ETHUDP;

/// Most lines of the helper itself, and of all code of ours that it can reach.
const HELPER: usize = 600;
const REACHED: usize = 2000;
/// Most lines of the resolver itself.
const RESOLVER: usize = 450;

/// A source file without its unit tests.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        Self { path, text }
    }

    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Whether it lies in a folder of `privsep` for those that are not the helper.
    fn is_for_others(&self) -> bool {
        let mut folders = self.path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap().iter();
        folders.any(|folder| ["worker", "supervisor", "resolver", "libraries"].iter().any(|other| folder == *other))
    }

    /// Names that others can use of this file.
    fn names(&self) -> BTreeSet<&str> {
        let public = self.text.lines().filter_map(|line| line.strip_prefix("pub "));
        let public = public.filter(|item| !item.starts_with("mod ") && !item.starts_with("use "));
        let kinds = ["const", "fn", "struct", "enum", "trait"];
        public.filter_map(|item| identifiers(item).find(|word| !kinds.contains(word))).collect()
    }

    /// Names that it uses, and some more.
    fn words(&self) -> BTreeSet<&str> {
        // `pub use` in a mod.rs only passes names on.
        let own = self.text.lines().filter(|line| !line.starts_with("pub use") && !line.trim_start().starts_with("//"));
        own.flat_map(identifiers).collect()
    }
}

fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                Some(extension) if extension == "rs" => found.push(Source::read(entry)),
                _ if entry.is_dir() => directories.push(entry),
                _ => {}
            }
        }
    }
    found
}

/// Splits `others` into those that `reached` uses by name, directly or not, and the rest.
fn reach(mut reached: Vec<Source>, mut others: Vec<Source>) -> (Vec<Source>, Vec<Source>) {
    loop {
        let words: BTreeSet<String> = reached.iter().flat_map(Source::words).map(str::to_owned).collect();
        let (used, rest): (Vec<_>, Vec<_>) = others
            .into_iter()
            // A mod.rs or lib.rs is part of whatever is below it.
            .partition(|file| {
                let part = (file.path.ends_with("mod.rs") && !file.is_for_others()) || file.path.ends_with("lib.rs");
                part || file.names().iter().any(|name| words.contains(*name))
            });
        others = rest;
        if used.is_empty() {
            return (reached, others);
        }
        reached.extend(used);
    }
}

#[test]
fn helper_code_is_bounded() {
    let helper = sources("helper/src");
    let own: usize = helper.iter().map(Source::lines).sum();
    let (reached, rest) = reach(helper, sources("privsep/src"));
    let all: usize = reached.iter().map(Source::lines).sum();
    let name = |file: &Source| file.path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
    for file in &reached {
        println!("{:5} {}", file.lines(), name(file));
    }
    let names: BTreeSet<_> = rest.iter().map(name).collect();
    println!("helper {own} lines, all that it reaches {all}; not reached: {names:?}");
    assert!(own <= HELPER && all <= REACHED, "helper {own} of {HELPER} lines, all that it reaches {all} of {REACHED}");
    assert!(rest.iter().all(Source::is_for_others), "of privsep the helper reaches nothing of {names:?}");
    let wrong: Vec<_> = reached.iter().filter(|file| file.is_for_others()).map(name).collect();
    assert!(wrong.is_empty(), "the helper names something of {wrong:?}");
}

/// The crates that a package is built from.
fn crates(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// What binutils say of a program of ours.
fn read(program: &str, arguments: &[&str]) -> String {
    let program = Path::new(ETHUDP).with_file_name(program);
    let output = Command::new(arguments[0]).args(&arguments[1..]).arg(program).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn programs_link_few_libraries() {
    let expected = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
    for program in ["ethudp", "ethudp-helper", "ethudp-worker", "ethudp-resolver"] {
        let dynamic = read(program, &["readelf", "--dynamic"]);
        let needed: BTreeSet<_> = dynamic
            .lines()
            .filter_map(|line| Some(line.split_once("(NEEDED)")?.1.split_once('[')?.1.trim_end_matches(']')))
            .collect();
        println!("{program}: {needed:?}");
        assert!(needed.contains("libc.so.6") && needed.iter().all(|library| expected.contains(library)), "{needed:?}");
    }
}

#[test]
fn resolver_code_is_bounded() {
    let own: usize = sources("resolver/src").iter().map(Source::lines).sum();
    println!("resolver {own} lines");
    assert!(own <= RESOLVER, "resolver {own} of {RESOLVER} lines");
}

#[test]
fn helper_uses_few_crates() {
    let crates = crates("ethudp-helper");
    println!("crates: {}", crates.iter().cloned().collect::<Vec<_>>().join(" "));
    for foreign in ["ethudp", "ethudp-worker", "clap", "toml", "serde_json", "syslog", "aes", "lz4_flex"] {
        assert!(!crates.contains(foreign), "{foreign} in {crates:?}");
    }
    let symbols = read("ethudp-helper", &["nm", "--demangle"]);
    for foreign in ["clap", "pcap", "aes::", "lz4", "toml", "serde_json"] {
        assert!(!symbols.lines().any(|line| line.contains(foreign)), "{foreign}");
    }
}

/// Each table of allowed calls: what it is called in the documentation, its file, its name there.
const TABLES: [(&str, &str, &str); 13] = [
    ("helper, while it opens", "helper/src/confine.rs", "OPENING"),
    ("helper, always", "helper/src/confine.rs", "SERVING"),
    ("worker", "worker/src/confine.rs", "ALLOWED"),
    ("supervisor", "src/service/confine.rs", "ALLOWED"),
    ("supervisor, in the background", "src/service/confine.rs", "SYSTEM_LOG"),
    ("supervisor, x86-64", "src/service/confine.rs", "OLD"),
    ("resolver, until it asks", "resolver/src/confine.rs", "WAITING"),
    ("resolver, always", "resolver/src/confine.rs", "ASKING"),
    ("resolver, x86-64", "resolver/src/confine.rs", "OLD"),
    ("filter compiler, while it opens", "src/filter/confine.rs", "OPENING"),
    ("filter compiler, always", "src/filter/confine.rs", "COMPILING"),
    ("resolver and filter compiler, always", "privsep/src/confine/libraries/mod.rs", "CALLS"),
    ("resolver and filter compiler, x86-64", "privsep/src/confine/libraries/mod.rs", "OLD"),
];

/// The words of a list `[...]` of constants in the source.
fn constants(source: &str, list: &str) -> String {
    let list = list.trim_start_matches('&');
    let text = if list.starts_with('[') {
        list
    } else {
        let start = format!("const {list}: &[i32] =");
        let at = source.find(&start).unwrap_or_else(|| panic!("no list {list}")) + start.len();
        &source[at + source[at..].find('[').unwrap()..]
    };
    let list = &text[1..text.find(']').unwrap()];
    let words = list.split(',').map(|word| word.trim().trim_start_matches("libc::").trim_end_matches(" as i32"));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
}

/// What the documentation says of a condition on arguments; man pages count these from one.
fn condition(source: &str, written: &str) -> String {
    let (kind, rest) = written.split_once('(').unwrap_or((written, ")"));
    let inner = rest.trim_end_matches(')');
    match (kind, inner.split_once(", ")) {
        ("Any", _) => "any".into(),
        ("WriteOrExecute", _) => "not `PROT_WRITE` and `PROT_EXEC` at once".into(),
        ("KillOne", _) => "SIGKILL to one process".into(),
        ("Both", _) => {
            let words: Vec<_> = inner.split(", ").map(|word| word.trim_start_matches("libc::")).collect();
            let number = |word: &str| word.parse::<u8>().unwrap() + 1;
            format!("argument {}: {}, argument {}: {}", number(words[0]), words[1], number(words[2]), words[3])
        }
        ("PlainMemory", _) => "to read and write, private, anonymous, and no more".into(),
        ("Socket", _) => inner.split(", ").map(|word| word.trim_start_matches("libc::")).collect::<Vec<_>>().join(", "),
        ("NoNamespace", _) => "without `CLONE_NEW*`".into(),
        ("AbortItself", _) => "SIGABRT to itself".into(),
        ("OneOf", Some((index, list))) => {
            format!("argument {}: {}", index.parse::<u8>().unwrap() + 1, constants(source, list))
        }
        ("OnlyFlags", Some((index, list))) => {
            format!("argument {}: no flag but {}", index.parse::<u8>().unwrap() + 1, constants(source, list))
        }
        ("SocketOption", Some((level, list))) => {
            format!("{}: {}", level.trim_start_matches("libc::"), constants(source, list))
        }
        _ => panic!("{written}"),
    }
}

/// A table of the source as the documentation shows it.
fn table(source: &str, name: &str) -> String {
    let start = source.find(&format!("pub const {name}: &[Allowed] = &[")).unwrap_or_else(|| panic!("no {name}"));
    let body = &source[start..];
    let body = &body[..body.find("];").unwrap()];
    let row = |entry: &str| {
        let entry = entry.split_whitespace().collect::<Vec<_>>().join(" ");
        let quoted: Vec<_> = entry.split('"').collect();
        assert!(quoted[2].starts_with(&format!(", libc::SYS_{}, ", quoted[1])), "name and number differ: {entry}");
        let arguments = quoted[2].trim_matches([',', ' ']).split_once(", ").unwrap().1;
        format!("| `{}` | {} | {} |\n", quoted[1], condition(source, arguments), quoted[3])
    };
    let rows: String = body.split("allow(").skip(1).map(row).collect();
    format!("| call | arguments | why |\n|---|---|---|\n{rows}")
}

/// The calls in a table.
fn calls(file: &str, name: &str) -> Vec<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let rows = table(&source, name);
    rows.lines().skip(2).map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn worker_table_is_subset_of_supervisors() {
    let inherited = [calls("src/service/confine.rs", "ALLOWED"), calls("src/service/confine.rs", "OLD")].concat();
    for call in calls("worker/src/confine.rs", "ALLOWED") {
        assert!(inherited.contains(&call), "{call}");
    }
    // A row without a condition beside one with it would not do what it says.
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service/confine.rs")).unwrap();
    let rows = [table(&source, "ALLOWED"), table(&source, "OLD"), table(&source, "SYSTEM_LOG")].concat();
    for row in rows.lines().filter(|row| row.contains("` | any |")) {
        let call = row.split('`').nth(1).unwrap();
        assert_eq!(rows.matches(&format!("| `{call}` |")).count(), 1, "{call} twice");
    }
}

#[test]
fn documented_system_calls_match_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(&page).unwrap();
    let mut right = text.clone();
    for (title, file, name) in TABLES {
        let source = fs::read_to_string(root.join(file)).unwrap();
        let heading = format!("\n#### {title}: `{name}` in `{file}`\n\n");
        let start = right.find(&heading).unwrap_or_else(|| panic!("ARCHITECTURE.md lacks {heading:?}")) + heading.len();
        let end = right[start..].find("\n\n").map_or(right.len(), |length| start + length + 1);
        right.replace_range(start..end, &table(&source, name));
    }
    if std::env::var_os("ETHUDP_WRITE_TABLES").is_some() {
        fs::write(page, right).unwrap();
    } else {
        assert!(text == right, "docs/ARCHITECTURE.md is not up to date: run this test with ETHUDP_WRITE_TABLES=1");
    }
}

/// The words in backticks of a document.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The file of a module, by its path as the documents write it: of the tests, else of the supervisor; `worker: ` or `resolver: ` before
/// those of another program. Unit tests are in a file of their own, or at the end of what they test.
fn module(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (roots, path) = match name.split_once(": ") {
        Some(("worker", path)) => (&["worker/src"][..], path),
        Some(("resolver", path)) => (&["resolver/src"][..], path),
        _ => (&["tests", "src"][..], name),
    };
    let path = path.replace("::", "/");
    let outer = path.strip_suffix("/tests");
    let places =
        roots.iter().flat_map(|root| [Some(&path[..]), outer].into_iter().flatten().map(move |path| (root, path)));
    let mut files = places.flat_map(|(place, path)| {
        [format!("{place}/{path}.rs"), format!("{place}/{path}/mod.rs")].map(|file| root.join(file))
    });
    files.find(|file| file.exists())
}

#[test]
fn documented_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut named, mut units) = (0, 0);
    for page in ["AUDIT.md", "THREATS.md", "ARCHITECTURE.md", "LEDGER.md"] {
        let text = fs::read_to_string(root.join("docs").join(page)).unwrap();
        for word in quoted(&text) {
            let Some((place, test)) = word.rsplit_once("::") else { continue };
            assert!(!test.ends_with("..."), "{page}: {word}: name the test in full");
            let whole = test.contains('_') && !test.contains(['*', '.', ' ']);
            if let Some(file) = module(place).filter(|_| whole) {
                named += 1;
                units += usize::from(place.ends_with("::tests"));
                assert!(fs::read_to_string(file).unwrap().contains(&format!("fn {test}(")), "{page}: {word}");
            } else if whole || test == "*" || test == "tests" {
                // Paths of the code, and tests of other crates, begin with the name of a crate.
                let other = ["crate", "privsep", "libc", "status"].contains(&word.split("::").next().unwrap());
                assert!(other || module(place).is_some(), "{page}: {word}: no such module");
            }
        }
    }
    assert!(named > 5 && units > 5, "{named} tests named, {units} of them of units");
}

#[test]
fn documented_crates_are_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/AUDIT.md")).unwrap();
    let mut told = BTreeSet::new();
    for (table, package) in text.split("| crate | why |").skip(1).zip(["ethudp-helper", "ethudp-worker"]) {
        let table = table.split("\n\n").next().unwrap();
        let first: String = table.lines().filter_map(|row| row.split('|').nth(1)).collect();
        told.extend(quoted(&first).into_iter().map(str::to_owned));
        let mut expected = crates(package);
        assert!(expected.remove(package));
        assert_eq!(told, expected, "{package}");
    }
    assert_eq!(text.matches("| crate | why |").count(), 2);
    // "The resolver has the crates of the helper."
    let [resolver, helper] = ["ethudp-resolver", "ethudp-helper"].map(|package| {
        let mut crates = crates(package);
        assert!(crates.remove(package));
        crates
    });
    assert_eq!(resolver, helper);
}
