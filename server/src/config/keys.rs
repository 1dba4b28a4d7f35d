//! Every setting: its name, its default, what it means, and how its text is parsed.

use std::path::PathBuf;

use proximity_commands::Secret;

use super::{Config, Range, Registration};

/// One setting; `server.listen` is `[server] listen` in the file and `PROXIMITY_SERVER__LISTEN`.
pub struct Key {
    pub name: &'static str,
    /// Also read from the file that `PROXIMITY_…_FILE` names.
    pub secret: bool,
    /// As it would be written; empty: not set.
    pub default: &'static str,
    pub help: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Key {
    /// `PROXIMITY_SERVER__LISTEN` for `server.listen`.
    pub fn variable(&self) -> String {
        format!("PROXIMITY_{}", self.name.to_ascii_uppercase().replace('.', "__"))
    }
}

macro_rules! key {
    ($name:literal, $default:literal, $help:literal, $set:expr) => {
        Key { name: $name, secret: false, default: $default, help: $help, set: $set }
    };
    (secret $name:literal, $help:literal, $set:expr) => {
        Key { name: $name, secret: true, default: "", help: $help, set: $set }
    };
}

/// All settings there are.
pub static KEYS: &[Key] = &[
    key!("data.dir", "/var/lib/proximity", "directory of the embedded store and keys", |c, v| {
        c.data = PathBuf::from(v);
        Ok(())
    }),
    key!(secret "database.url", "postgres://… (also DATABASE_URL); not set: the embedded store", |c, v| {
        let url = text(v);
        if url.as_ref().is_some_and(|url| {
            !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
        }) {
            // It may hold a password, so it is not shown.
            return Err("a database is named postgres://USER@HOST/NAME".to_owned());
        }
        c.database_url = url.map(Secret::new);
        Ok(())
    }),
    key!("database.migrate", "true", "bring an older schema up to date at start", |c, v| {
        c.migrate = boolean(v)?;
        Ok(())
    }),
    key!(
        "secrets.master_key_file",
        "",
        "file with the master key (also PROXIMITY_MASTER_KEY_FILE)",
        |c, v| {
            c.master_key_file = text(v).map(PathBuf::from);
            Ok(())
        }
    ),
    key!(
        "server.listen",
        "127.0.0.1:7800",
        "address and port to serve on; port 0: any free one",
        |c, v| {
            let parts = v.rsplit_once(':').filter(|(address, _)| !address.is_empty());
            let (_, port) = parts.ok_or("an address and a port are written 127.0.0.1:7800")?;
            port.parse::<u16>().map_err(|_| format!("{port} is no port; 0 to 65535 are"))?;
            c.server.listen = v.to_owned();
            Ok(())
        }
    ),
    key!(
        "server.public_url",
        "",
        "origin that browsers see when a proxy stands in front",
        |c, v| {
            c.server.public_url = text(v).map(|v| v.parse().map_err(reason)).transpose()?;
            Ok(())
        }
    ),
    key!("server.trusted_proxies", "", "networks whose X-Forwarded-For is believed", |c, v| {
        c.server.trusted_proxies = list(v)
            .map(|item| {
                item.parse()
                    .or_else(|_| item.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
                    .map_err(|_| format!("{item:?} is no network, like 10.0.0.0/8"))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }),
    key!("server.cors_origins", "", "origins whose pages may call with credentials", |c, v| {
        c.server.cors_origins = list(v).map(origin).collect::<Result<_, _>>()?;
        Ok(())
    }),
    key!("server.body_limit", "1048576", "bytes of a request's body", |c, v| {
        c.server.body_limit = number(v, 1024, 64 << 20)?;
        Ok(())
    }),
    key!("server.workers", "0", "threads that serve HTTP; 0: one per core, at most 8", |c, v| {
        c.server.workers = number(v, 0, 256)?;
        Ok(())
    }),
    key!(
        "server.max_connections",
        "4096",
        "connections that are served at once; each takes two file descriptors",
        |c, v| {
            c.server.max_connections = number(v, 1, 1_000_000)?;
            Ok(())
        }
    ),
    key!(
        "server.max_requests",
        "1024",
        "requests that are worked on at once; more get 503",
        |c, v| {
            c.server.max_requests = number(v, 1, 1_000_000)?;
            Ok(())
        }
    ),
    key!(
        "server.tls_certificate",
        "",
        "PEM file with the certificate chain; needs tls_key",
        |c, v| {
            c.server.tls_certificate = text(v).map(PathBuf::from);
            Ok(())
        }
    ),
    key!("server.tls_key", "", "PEM file with the private key", |c, v| {
        c.server.tls_key = text(v).map(PathBuf::from);
        Ok(())
    }),
    key!(secret "server.metrics_token", "bearer token for /metrics from other machines", |c, v| {
        c.server.metrics_token = text(v).map(Secret::new);
        Ok(())
    }),
    key!("identity.registration", "closed", "`open`: anybody may make an account", |c, v| {
        c.registration = match v {
            "closed" => Registration::Closed,
            "open" => Registration::Open,
            _ => return Err("it is either closed or open".into()),
        };
        Ok(())
    }),
    key!("ports.public", "8100-8999", "ports that applications are published on", |c, v| {
        c.public_ports = range(v, 1, 65_535)?;
        Ok(())
    }),
    key!("ports.internal", "9100-9999", "ports of the embedded view", |c, v| {
        c.internal_ports = range(v, 1, 65_535)?;
        Ok(())
    }),
    key!("vmids.range", "100-999999999", "numbers that containers are given on Proxmox", |c, v| {
        c.vmids = range(v, 100, 999_999_999)?;
        Ok(())
    }),
    key!(
        "proxmox.concurrency",
        "3",
        "calls to one Proxmox host at once; it has three workers",
        |c, v| {
            c.proxmox_concurrency = u32::try_from(number(v, 1, 64)?).map_err(reason)?;
            Ok(())
        }
    ),
    key!("publish.enabled", "true", "listen on applications' public ports and forward", |c, v| {
        c.publish.enabled = boolean(v)?;
        Ok(())
    }),
    key!("publish.bind", "127.0.0.1", "address on which applications are published", |c, v| {
        c.publish.bind = v.parse().map_err(|_| format!("{v:?} is no IP address"))?;
        Ok(())
    }),
    key!(
        "publish.host",
        "",
        "host name in an application's url; not set: the bind address",
        |c, v| {
            c.publish.host = text(v);
            Ok(())
        }
    ),
    key!(
        "publish.max_connections",
        "8192",
        "connections to all published ports at once; more wait",
        |c, v| {
            c.publish.max_connections = number(v, 1, 1_000_000)?;
            Ok(())
        }
    ),
    key!("catalog.dir", "", "folder with catalog files; not set: the built-in catalog", |c, v| {
        c.catalog_dir = text(v).map(PathBuf::from);
        Ok(())
    }),
    key!(
        "audit.heads_dir",
        "",
        "where signed heads of the log go, best on another disk or host; not set: `heads` in the data directory",
        |c, v| {
            c.heads_dir = text(v).map(PathBuf::from);
            Ok(())
        }
    ),
];

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn reason(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn boolean(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "it is either true or false".to_owned())
}

fn number(value: &str, least: usize, most: usize) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("it is a whole number between {least} and {most}")),
    }
}

fn range(value: &str, least: u32, most: u32) -> Result<Range, String> {
    let wrong = || format!("it is a range within {least}-{most}, like {least}-{most}");
    let (first, last) = value.split_once('-').ok_or_else(wrong)?;
    let parse = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let (first, last) = (parse(first)?, parse(last)?);
    if first < least || last > most || first > last {
        return Err(wrong());
    }
    Ok(Range { first, last })
}

/// `scheme://host[:port]` and nothing else, as a browser writes it.
fn origin(value: &str) -> Result<String, String> {
    let wrong = || format!("{value:?} is no origin, like https://proximity.example");
    let url: url::Url = value.parse().map_err(|_| wrong())?;
    let origin = url.origin().ascii_serialization();
    let is_web = matches!(url.scheme(), "http" | "https");
    if is_web && value.trim_end_matches('/') == origin { Ok(origin) } else { Err(wrong()) }
}

/// The reference of all settings, as it stands in `docs/CONFIGURATION.md`.
#[cfg(test)]
pub(super) fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\nEach setting can be given in four places; the first one that has it counts:\n\n\
         1. a flag: `--set section.key=value` (`--listen` and `--data` are short for two of them);\n\
         2. the environment: the variable named below; for those marked *secret* also that name with\n   \
            `_FILE` at its end, which names a file that holds the value;\n\
         3. the file `/etc/proximity/config.toml`, or the one that `--config` names:\n   \
            `[section]` and `key = value`; lists are lists of texts;\n\
         4. the default.\n\n\
         A name that is not in this table is refused, so that a slip cannot pass as a default.\n\n\
         | key | variable | default | |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        let default = if key.default.is_empty() { "" } else { &format!("`{}`", key.default) };
        let secret = if key.secret { " (*secret*)" } else { "" };
        let line = format!(
            "| `{}` | `{}` | {default} | {}{secret} |\n",
            key.name,
            key.variable(),
            key.help
        );
        text.push_str(&line);
    }
    text
}
