//! When a tunnel is started again for what only that repairs.

/// When what only a new start repairs is repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repair {
    /// At once.
    #[default]
    AtOnce,
    /// At this time of day, in seconds since midnight UTC.
    Daily {
        /// 0 to 86,399.
        second: u32,
    },
    /// When the tunnel is started again for another reason.
    Never,
}

/// Parses when to repair: `at-once`, `never`, or `HH:MM` in UTC.
pub fn parse(what: &str, text: &str) -> Result<Repair, String> {
    let number = |part: &str, below: u32| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|&number: &u32| digits && number < below)
    };
    let time = || {
        let (hour, minute) = text.split_once(':')?;
        Some(Repair::Daily { second: number(hour, 24)? * 3600 + number(minute, 60)? * 60 })
    };
    match text {
        "at-once" => Ok(Repair::AtOnce),
        "never" => Ok(Repair::Never),
        _ => time()
            .ok_or_else(|| format!("{what} = {text:?}: must be \"at-once\", \"never\", or a time \"HH:MM\" in UTC")),
    }
}
