//! The configuration inside an archive, as the text of its file.

use proximity_commands::ports::{ArchivedConfig, HypervisorError};
use proximity_domain::NodeName;
use serde_json::Value;

use crate::request::{Request, call};
use crate::row::malformed;

pub(crate) fn request(node: &NodeName, archive: &str) -> Request {
    Request::new(call::ARCHIVED_CONFIG, &[node.as_str()]).with("volume", archive)
}

/// Reads the file: `#` begins a line of the description, `lxc.x: y` or `lxc.x = y` is a raw line, and
/// `[x]` begins the configuration of a snapshot, which is not the container's.
pub(crate) fn read(data: &Value) -> Result<ArchivedConfig, HypervisorError> {
    let Some(text) = data.as_str() else {
        return Err(malformed(call::ARCHIVED_CONFIG, "it is no text"));
    };
    let mut config = ArchivedConfig::default();
    let mut description: Vec<String> = Vec::new();
    // The command of an older node, which had no setting for it.
    let mut command = None;
    for line in text.lines().take_while(|line| !line.starts_with('[')) {
        if let Some(comment) = line.strip_prefix('#') {
            description.push(decoded(comment));
        } else if let Some(value) = raw(line, "lxc.environment.runtime") {
            if let Some((name, value)) = value.split_once('=') {
                config.process.environment.insert(name.to_owned(), value.to_owned());
            }
        } else if let Some(value) = raw(line, "lxc.init.cmd") {
            command = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("entrypoint:") {
            config.process.entrypoint = Some(value.trim().to_owned());
        } else {
            disk(line, &mut config);
        }
    }
    config.process.entrypoint = config.process.entrypoint.or(command);
    config.description = (!description.is_empty()).then(|| description.join("\n"));
    Ok(config)
}

/// The root disk or a mount point: what a restore makes of it, and whether its contents were stored. That
/// is so of volumes that were marked for it; directories and devices of the node never are, whatever
/// their mark says.
fn disk(line: &str, config: &mut ArchivedConfig) {
    let Some((key, value)) = line.split_once(':') else { return };
    let is_mount_point = key.strip_prefix("mp").is_some_and(|n| n.parse::<u16>().is_ok());
    if !is_mount_point && key != "rootfs" {
        return;
    }
    let members = || value.trim().split(',');
    let member = |name: &str| {
        members().find_map(|part| part.split_once('=').filter(|(key, _)| *key == name)).map(|m| m.1)
    };
    // The volume stands first, without a name or with its own.
    let unnamed = members().find(|part| !part.contains('='));
    if let Some(path) =
        unnamed.or_else(|| member("volume")).filter(|volume| volume.starts_with('/'))
    {
        config.of_the_node.insert(key.to_owned(), path.to_owned());
        return;
    }
    config.sizes.insert(key.to_owned(), member("size").unwrap_or_default().to_owned());
    let is_marked = member("backup").is_some_and(|on| ["1", "on", "yes", "true"].contains(&on));
    if let Some(path) = member("mp").filter(|_| is_mount_point && is_marked) {
        config.held.insert(path.trim_end_matches('/').to_owned());
    }
}

/// The value of a raw line of this name.
fn raw<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    rest.strip_prefix(':').or_else(|| rest.trim_start().strip_prefix('=')).map(str::trim)
}

/// A line of a description, of which Proxmox keeps some letters percent-encoded.
fn decoded(comment: &str) -> String {
    let mut bytes = Vec::with_capacity(comment.len());
    let mut rest = comment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2).and_then(|two| std::str::from_utf8(two).ok()))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(text: &str) -> (Option<String>, Vec<(String, String)>) {
        let process = read(&json!(text)).unwrap().process;
        (process.entrypoint, process.environment.into_iter().collect())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_process_is_read_and_nothing_of_a_snapshot_or_of_the_notes() {
        let text = "#notes%3A\n#lxc.environment.runtime: EVIL=1\narch: amd64\nentrypoint: /run -x\n\
                    lxc.init.cwd: /srv\nlxc.environment.runtime: PATH=/bin:/usr/bin\n\
                    lxc.environment.runtime = B=x=y z\n[old]\nentrypoint: /old\n\
                    lxc.environment.runtime: C=1\n";
        let expected = vec![pair("B", "x=y z"), pair("PATH", "/bin:/usr/bin")];
        assert_eq!(process(text), (Some("/run -x".to_owned()), expected));
        assert_eq!(process("hostname: a\n"), (None, vec![]));
        assert_eq!(process("lxc.init.cmd: /run \"a b\"\n").0.as_deref(), Some("/run \"a b\""));
        assert_eq!(process("lxc.environment.runtimes: A=1\nlxc.environment: B=1\n").1, []);
        let wrong = read(&json!(["x"])).unwrap_err();
        assert!(matches!(wrong, HypervisorError::Malformed { .. }), "{wrong:?}");
    }

    #[test]
    fn only_volumes_that_were_marked_are_held() {
        let text = "#mp8: local:1,backup=1,mp=/notes\nmp0: local:101/vm-101-disk-1.raw,mp=/data\n\
                    mp1: local:subvol-101-disk-2,backup=1,mp=/kept/,size=1G\nmp2: /srv,mp=/srv,backup=1\n\
                    mp3: local:1,mp=/off,backup=0\nrootfs: local:1,size=1G\n[old]\n\
                    mp4: local:1,mp=/old,backup=1\n";
        let read = read(&json!(text)).unwrap();
        assert_eq!(read.held, ["/kept".to_owned()].into());
        assert!(read.holds("/kept") && read.holds("/kept/") && !read.holds("/data"));
    }

    #[test]
    fn the_disks_that_a_restore_makes_and_what_it_mounts_of_the_node_are_read() {
        let text = "#rootfs: local:1,size=9T\nrootfs: local:101/vm-101-disk-0.raw,size=8G\n\
                    mp0: volume=local:101/vm-101-disk-1.raw,mp=/data,size=1G\nmp1: local:2,mp=/x\n\
                    mp2: /srv/share,mp=/srv,size=1T\nmp3: volume=/dev/sdb1,mp=/device\n\
                    unused0: local:101/vm-101-disk-4.raw\n[old]\nmp4: /old,mp=/old\n";
        let read = read(&json!(text)).unwrap();
        let pairs = |of: &[(&str, &str)]| {
            of.iter().map(|(k, v)| pair(k, v)).collect::<std::collections::BTreeMap<_, _>>()
        };
        assert_eq!(read.sizes, pairs(&[("rootfs", "8G"), ("mp0", "1G"), ("mp1", "")]));
        assert_eq!(read.of_the_node, pairs(&[("mp2", "/srv/share"), ("mp3", "/dev/sdb1")]));
    }

    #[test]
    fn a_description_is_decoded_line_by_line() {
        let read = read(&json!("#%C3%A9 100%25%\n#a%3Ab %zz\nhostname: a\n")).unwrap();
        assert_eq!(read.description.as_deref(), Some("é 100%%\na:b %zz"));
    }
}
