//! Options of LXC itself in a configuration, and a configuration as the text of its file.

use super::container::Config;

/// The settings that are stored as raw lines: the environment, and what else an image brought, as a
/// JSON list of pairs.
const RAW: [&str; 2] = ["env", "lxc"];

/// What an image brings besides its process.
pub(crate) const OF_AN_IMAGE: &str = r#"[["lxc.init.cwd","/"],["lxc.signal.halt","SIGTERM"]]"#;

/// The raw lines of a configuration, as they stand in its file.
pub(crate) fn lines(config: &Config) -> Vec<String> {
    let others = config.get("lxc").and_then(|list| serde_json::from_str(list).ok());
    let others: Vec<(String, String)> = others.unwrap_or_default();
    let environment = config.get("env").into_iter().flat_map(|env| env.split('\0'));
    others
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .chain(environment.map(|pair| format!("lxc.environment.runtime: {pair}")))
        .collect()
}

/// Takes the raw lines out of a configuration.
pub(crate) fn remove(config: &mut Config) {
    for key in RAW {
        config.remove(key);
    }
}

/// The file: the description as comments, the settings, then the raw lines.
pub(crate) fn text(config: &Config) -> String {
    let mut text = String::new();
    let description = config.get("description").map_or("", String::as_str);
    let comments = description.lines().map(|line| format!("#{}\n", encoded(line)));
    text.extend(comments);
    let settings =
        config.iter().filter(|(key, _)| *key != "description" && !RAW.contains(&key.as_str()));
    text.extend(settings.map(|(key, value)| format!("{key}: {value}\n")));
    text.extend(lines(config).into_iter().map(|line| line + "\n"));
    text
}

/// Percent-encodes what Proxmox encodes in a comment: control characters, `%`, `:`, and what is no ASCII.
fn encoded(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for byte in line.bytes() {
        if byte.is_ascii_control() || !byte.is_ascii() || b"%:".contains(&byte) {
            text.push_str(&format!("%{byte:02X}"));
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_notes_as_comments_and_the_environment_as_raw_lines() {
        let pairs = [
            ("description", "a: b\nlxc.environment.runtime: X=1"),
            ("env", "A=1\0B=2"),
            ("entrypoint", "/run"),
            ("lxc", OF_AN_IMAGE),
        ];
        let mut config: Config =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(
            text(&config),
            "#a%3A b\n#lxc.environment.runtime%3A X=1\nentrypoint: /run\nlxc.init.cwd: /\n\
             lxc.signal.halt: SIGTERM\nlxc.environment.runtime: A=1\nlxc.environment.runtime: B=2\n"
        );
        remove(&mut config);
        assert_eq!(lines(&config), Vec::<String>::new());
        assert!(config.contains_key("entrypoint"), "it is a setting of its own");
    }
}
