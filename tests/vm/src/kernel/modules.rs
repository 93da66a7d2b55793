//! Which module files a module takes, in the order in which they are loaded (modules.dep(5)).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::Kernel;
use crate::error::{At, Error};

/// The files of these modules and of all that they depend on, each after what it depends on. A module that is built
/// into the kernel takes none.
pub(crate) fn closure(kernel: &Kernel, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let folder = kernel.modules();
    let read = |name: &str| fs::read_to_string(folder.join(name)).at(folder.join(name));
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let index = Index::new(&dependencies, &builtin);
    let files = index.closure(names).map_err(|name| {
        Error::Machine(format!(
            "kernel {} has no module {name}, which the guest needs",
            kernel.release
        ))
    })?;
    Ok(files.into_iter().map(|file| folder.join(file)).collect())
}

struct Index<'a> {
    /// By name: the file and those that it depends on, the farthest last.
    files: BTreeMap<String, Vec<&'a str>>,
    builtin: Vec<String>,
}

/// A file's name as a module's: without folder and endings, `-` and `_` being the same.
fn module(file: &str) -> String {
    let name = Path::new(file)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

impl<'a> Index<'a> {
    fn new(dependencies: &'a str, builtin: &str) -> Self {
        let files = dependencies.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let all: Vec<&str> = std::iter::once(file)
                .chain(needs.split_whitespace())
                .collect();
            Some((module(file), all))
        });
        Self {
            files: files.collect(),
            builtin: builtin.lines().map(module).collect(),
        }
    }

    fn closure(&self, names: &[&str]) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        for name in names {
            match self.files.get(*name) {
                Some(files) => {
                    for file in files.iter().rev() {
                        if !order.contains(file) {
                            order.push(*file);
                        }
                    }
                }
                None if self.builtin.iter().any(|built| built == name) => {}
                None => return Err((*name).to_owned()),
            }
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_builtin() {
        let dependencies = "kernel/fs/9p/9p.ko.xz: kernel/net/9pnet.ko.xz kernel/fs/netfs.ko.xz\n\
                            kernel/net/9pnet.ko.xz:\nkernel/fs/netfs.ko.xz:\n\
                            kernel/net/9pnet_virtio.ko: kernel/net/9pnet.ko.xz\n";
        let index = Index::new(dependencies, "kernel/drivers/virtio/virtio-pci.ko\n");
        assert_eq!(
            index
                .closure(&["virtio_pci", "9p", "9pnet_virtio"])
                .expect("all there"),
            [
                "kernel/fs/netfs.ko.xz",
                "kernel/net/9pnet.ko.xz",
                "kernel/fs/9p/9p.ko.xz",
                "kernel/net/9pnet_virtio.ko"
            ]
        );
        assert_eq!(index.closure(&["nowhere"]), Err("nowhere".to_owned()));
    }
}
