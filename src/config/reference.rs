//! The configuration as text for people: the reference of all keys, and the report of what is in force.

use std::fmt::Write as _;

use toml::Value;

use super::settings::{Key, SECTIONS};
use super::{Config, Loaded, Source, plan_limits};

const HEAD: &str = "\
# All settings of tenancy, with their defaults. Made from the code; a test compares.
#
# Later ones win: defaults, this file (--config or TENANCY_CONFIG names it), the environment, flags. The name of a
# value in the environment follows from its place here: TENANCY_, then upper case, \"__\" between levels. DATABASE_URL
# is another name of TENANCY_DATABASE__URL. In the environment lists are separated by commas, and an empty variable
# counts as not set.
";

const PLANS: &str = "\
# Plans: what an organization may have. \"free\" is always there, without limits unless some are set.
# What a plan does not name is unlimited; but of API tokens (tokens) there are 100 then.
";

/// All keys with documentation, limits and defaults, as a TOML file that can be used as it is.
#[must_use]
pub fn reference() -> String {
    let defaults = Config::default().shown();
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        text.push('\n');
        if !section.name.is_empty() {
            comment(&mut text, section.documentation);
            let _ = writeln!(text, "[{}]", section.name);
        }
        for (number, key) in section.keys.iter().enumerate() {
            if number > 0 || !section.name.is_empty() {
                text.push('\n');
            }
            entry(&mut text, key, defaults.get(key.path).and_then(Option::as_ref));
        }
    }
    let _ = write!(text, "\n{PLANS}[plans.free.limits]\n");
    for (limit, smallest, largest) in plan_limits() {
        let key = format!("plans.free.limits.{limit}");
        let _ = write!(text, "\n# {smallest} to {largest}. {}\n#{limit} =\n", Source::variable(&key));
    }
    text
}

fn entry(text: &mut String, key: &Key, default: Option<&Value>) {
    comment(text, key.documentation);
    let limits = key.limits.map_or_else(String::new, |(smallest, largest)| match default {
        Some(Value::String(_)) => format!("{smallest} to {largest} bytes. "),
        Some(Value::Array(_)) => format!("{smallest} to {largest} entries. "),
        _ => format!("{smallest} to {largest}. "),
    });
    let _ = writeln!(text, "# {limits}{}", Source::variable(key.path));
    let name = name(key);
    let _ = match default {
        Some(value) => writeln!(text, "{name} = {value}"),
        None => writeln!(text, "#{name} ="),
    };
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "# {}", line.trim());
    }
}

fn name(key: &Key) -> &'static str {
    key.path.rsplit('.').next().unwrap_or(key.path)
}

/// What is in force, as TOML, with the source of each value behind it; secrets hidden.
pub(super) fn report(loaded: &Loaded) -> String {
    let shown = loaded.config.shown();
    let mut text = String::new();
    for section in SECTIONS {
        if !section.name.is_empty() {
            let _ = write!(text, "\n[{}]\n", section.name);
        }
        for key in section.keys {
            let line = match shown.get(key.path).and_then(Option::as_ref) {
                Some(value) => format!("{} = {value}", name(key)),
                None => format!("# {} is not set", name(key)),
            };
            let _ = writeln!(text, "{line:<40} # {}", loaded.source(key.path));
        }
    }
    plans(&mut text, loaded);
    text
}

fn plans(text: &mut String, loaded: &Loaded) {
    for (plan, limits) in &loaded.config.plans {
        let _ = write!(text, "\n[plans.{plan}.limits]\n");
        for (limit, ..) in plan_limits() {
            let line = limits
                .limits
                .get(limit)
                .map_or_else(|| format!("# {limit}: unlimited"), |maximum| format!("{limit} = {maximum}"));
            let source = loaded.source(&format!("plans.{plan}.limits.{limit}"));
            let _ = writeln!(text, "{line:<40} # {source}");
        }
    }
}
