//! Time of a new start that repairs faults.

/// Time at which a fault that needs a new start is repaired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repair {
    /// At once.
    #[default]
    AtOnce,
    /// At this time of day.
    Daily {
        /// Seconds since midnight UTC, 0 to 86,399.
        second: u32,
    },
    /// Only when the tunnel is started again for another reason.
    Never,
}

/// Parses a time of repair: `at-once`, `never`, or `HH:MM` in UTC.
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
