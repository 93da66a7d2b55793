//! The guest's initramfs: busybox, the modules that lead to the host's shares, a choice of the host's /etc, the
//! first process and the command. It is written to a file, as QEMU wants it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use cpio::newc;

use crate::{
    error::{At, Error, run},
    kernel::{self, Kernel},
};

/// The first process.
const INIT: &str = include_str!("guest/init");

/// What has to be there before anything can be mounted from the host: its bus, the shares, the layer above /usr,
/// and the ports that the verdict goes through.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
];

/// What the guest gets of the host's /etc: how names and libraries are found, and the settings of the tools that tests
/// use. Nothing that only root may read.
const ETC: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "ethertypes",
    "group",
    "hosts",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "profile",
    "protocols",
    "services",
    "shells",
    "suricata",
];

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// Writes the initramfs of a kernel. `command` is a shell script; `settings` are assignments that a shell reads.
pub(crate) fn write(
    to: &Path,
    kernel: &Kernel,
    command: &str,
    settings: &str,
) -> Result<(), Error> {
    let mut archive = Archive::create(to)?;
    archive.file("busybox", 0o755, &busybox()?)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("command", 0o755, command.as_bytes())?;
    archive.file("settings", 0o644, settings.as_bytes())?;
    archive.folder("modules")?;
    for (number, file) in kernel::closure(kernel, MODULES)?.iter().enumerate() {
        let name = format!("modules/{number:02}.ko");
        archive.file(&name, 0o644, &unpacked(file)?)?;
    }
    archive.folder("etc")?;
    for name in ETC {
        archive.copy(&Path::new("/etc").join(name), &format!("etc/{name}"))?;
    }
    archive.finish()
}

/// An initramfs that says one word, to find out whether an accelerator runs anything at all.
pub(crate) fn write_probe(to: &Path, word: &str) -> Result<(), Error> {
    let init = format!(
        "#!/busybox sh\n/busybox mkdir -p /dev\n/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null\n\
         echo {word} >/dev/console\n/busybox poweroff -f\n"
    );
    let mut archive = Archive::create(to)?;
    archive.file("busybox", 0o755, &busybox()?)?;
    archive.file("init", 0o755, init.as_bytes())?;
    archive.finish()
}

fn busybox() -> Result<Vec<u8>, Error> {
    let path = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .ok_or_else(|| Error::Machine("there is no busybox: install busybox-static".into()))?;
    let bytes = fs::read(path).at(path)?;
    // A program that asks for an interpreter (PT_INTERP) finds none in the guest.
    let interpreter = b"/lib64/ld-linux-x86-64.so.2\0";
    if bytes
        .windows(interpreter.len())
        .any(|window| window == interpreter)
    {
        return Err(Error::Machine(format!(
            "{path} is linked dynamically: install busybox-static in its place"
        )));
    }
    Ok(bytes)
}

/// A module as the kernel loads it without help: packages have them compressed.
fn unpacked(file: &Path) -> Result<Vec<u8>, Error> {
    let program = match file.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).at(file),
    };
    run(Command::new(program).arg("-dc").arg(file))
}

struct Archive {
    out: BufWriter<File>,
    path: PathBuf,
    entries: u32,
}

impl Archive {
    fn create(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            out: BufWriter::new(File::create(path).at(path)?),
            path: path.to_owned(),
            entries: 0,
        })
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        self.entries += 1;
        let size = u32::try_from(bytes.len())
            .map_err(|_| Error::Machine(format!("{name} is too large for an initramfs")))?;
        let mut entry = newc::Builder::new(name)
            .ino(self.entries)
            .mode(mode)
            .nlink(1)
            .write(&mut self.out, size);
        entry
            .write_all(bytes)
            .and_then(|()| entry.finish().map(drop))
            .at(&self.path)
    }

    fn file(&mut self, name: &str, permissions: u32, bytes: &[u8]) -> Result<(), Error> {
        self.entry(name, FILE | permissions, bytes)
    }

    fn folder(&mut self, name: &str) -> Result<(), Error> {
        self.entry(name, FOLDER | 0o755, &[])
    }

    /// A file, link or folder with all that is in it. What is not there or may not be read is left out.
    fn copy(&mut self, from: &Path, name: &str) -> Result<(), Error> {
        let Ok(about) = fs::symlink_metadata(from) else {
            return Ok(());
        };
        if about.is_symlink() {
            let target = fs::read_link(from).at(from)?;
            return self.entry(name, LINK | 0o777, target.as_os_str().as_encoded_bytes());
        }
        if about.is_file() {
            // Root reads everything: the guest is to have only what everybody may.
            let everybody = about.permissions().mode() & 0o004 != 0;
            return match fs::read(from) {
                Ok(bytes) if everybody => {
                    self.file(name, about.permissions().mode() & 0o755, &bytes)
                }
                _ => Ok(()),
            };
        }
        if about.permissions().mode() & 0o005 != 0o005 {
            return Ok(());
        }
        self.folder(name)?;
        let Ok(entries) = fs::read_dir(from) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if let Some(inside) = entry.file_name().to_str() {
                self.copy(&entry.path(), &format!("{name}/{inside}"))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        newc::trailer(self.out)
            .and_then(|mut out| out.flush())
            .at(self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn copies_what_everybody_may_read() {
        let work = tempfile::tempdir().expect("a folder");
        let tree = work.path().join("tree");
        fs::create_dir_all(tree.join("inner")).expect("a folder");
        fs::write(tree.join("inner/open"), "open").expect("a file");
        fs::write(tree.join("secret"), "secret").expect("a file");
        fs::create_dir(tree.join("closed")).expect("a folder");
        fs::write(tree.join("closed/within"), "within").expect("a file");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(tree.join("closed"), mode(0o700)).expect("ours");
        fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o600)).expect("ours");
        std::os::unix::fs::symlink("inner/open", tree.join("link")).expect("a link");
        let file = work.path().join("archive");
        let mut archive = Archive::create(&file).expect("a file");
        archive.copy(&tree, "etc").expect("copied");
        archive
            .copy(&work.path().join("nothing"), "etc/nothing")
            .expect("left out");
        archive.finish().expect("written");
        let mut names = Vec::new();
        let mut rest = fs::read(&file).expect("the archive");
        loop {
            let mut reader = newc::Reader::new(&rest[..]).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).expect("its bytes");
            rest = reader.finish().expect("the next").to_vec();
        }
        names.sort();
        assert_eq!(names, ["etc", "etc/inner", "etc/inner/open", "etc/link"]);
    }
}
