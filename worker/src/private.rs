//! Files and folders that only their owner may read: the SQLite file holds every prompt and address, the
//! blobs every picture.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of a file.
pub(crate) const FILE: u32 = 0o600;
/// Mode of a folder.
pub(crate) const FOLDER: u32 = 0o700;

/// Creates a folder and its missing parents. Existing ones are left alone.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(folder)
}

/// Creates an empty SQLite file if there is none, and removes the rights of others from an existing one.
/// SQLite gives the files that it keeps beside it the same rights.
pub(crate) fn secure_sqlite(file: &Path) {
    // If this fails, SQLite reports why.
    let _made = OpenOptions::new().create(true).append(true).mode(FILE).open(file);
    for ending in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        tighten(&PathBuf::from(name), FILE);
    }
}

/// Removes the rights of others; logs a warning if this process may not change them.
pub(crate) fn tighten(path: &Path, mode: u32) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let others = meta.permissions().mode() & 0o077;
    if others == 0 || !(meta.is_file() || meta.is_dir()) {
        return;
    }
    let tightened = std::fs::set_permissions(path, Permissions::from_mode(mode));
    let path = path.display();
    match tightened {
        Ok(()) => tracing::info!(%path, "others could read it; now only its owner can"),
        Err(error) => tracing::warn!(%path, %error, "others can read it: take their rights away (chmod go=)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read_new_and_existing_files() {
        let home = std::env::temp_dir().join(format!("retouch-private-{}", uuid::Uuid::now_v7()));
        make_folder(&home.join("deep/er")).unwrap();
        assert_eq!([mode(&home), mode(&home.join("deep/er"))], [FOLDER; 2]);
        let file = home.join("retouch.sqlite");
        secure_sqlite(&file);
        assert_eq!(mode(&file), FILE);
        let wal = home.join("retouch.sqlite-wal");
        std::fs::write(&wal, "").unwrap();
        for path in [&file, &wal] {
            std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        std::fs::write(&file, "kept").unwrap();
        secure_sqlite(&file);
        assert_eq!([mode(&file), mode(&wal)], [FILE; 2]);
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        std::fs::remove_dir_all(&home).unwrap();
    }
}
