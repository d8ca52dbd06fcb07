//! `/sys/devices/system/cpu`: how many CPUs there are, how they lie together and what
//! caches they share (Linux's `Documentation/admin-guide/cputopology.rst` and
//! `Documentation/ABI/testing/sysfs-devices-system-cpu`).

use crate::pseudo::{PseudoFs, StaticDir, Text};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use machine::cpu;
use machine::topology::{self, Cache, CacheKind};

const CPUS: &str = "devices/system/cpu";

/// Some CPUs, by number.
type Set = Vec<usize>;

/// All CPUs.
fn all() -> Set {
    (0..cpu::count()).collect()
}

/// All CPUs of which `f` tells the same as of `cpu`.
fn alike<T: PartialEq>(cpu: usize, f: impl Fn(usize) -> T) -> Set {
    let own = f(cpu);
    all().into_iter().filter(|other| f(*other) == own).collect()
}

/// As a list of ranges, such as `0-2,5`.
fn list(set: &[usize]) -> String {
    let mut out = String::new();
    let mut rest = set.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = match last == first {
            true => write!(out, "{comma}{first}"),
            false => write!(out, "{comma}{first}-{last}"),
        };
    }
    out
}

/// As a mask of `count` bits, in words of 32 from the highest, with as many digits as there
/// are CPUs for (`cpumap_print_to_pagebuf` of Linux).
fn mask(set: &[usize], count: usize) -> String {
    let mut out = String::new();
    for word in (0..count.div_ceil(32)).rev() {
        let own = |cpu: &&usize| **cpu / 32 == word;
        let bits = set
            .iter()
            .filter(own)
            .fold(0u32, |n, cpu| n | 1 << (cpu % 32));
        let comma = if out.is_empty() { "" } else { "," };
        let digits = (count - word * 32).min(32).div_ceil(4);
        let _ = write!(out, "{comma}{bits:0digits$x}");
    }
    out
}

/// All CPUs as a list of ranges.
pub(super) fn online() -> String {
    list(&all())
}

/// Adds them all.
pub(super) fn add(fs: &PseudoFs, root: &StaticDir) {
    let put = |path: &str, value: String| {
        let content = move |out: &mut Text| writeln!(out, "{value}");
        root.add_at(
            fs,
            &format!("{CPUS}/{path}"),
            fs.file(0o444, Arc::new(content)),
        );
    };
    for name in ["online", "possible", "present"] {
        put(name, online());
    }
    let caches = topology::caches();
    for n in all() {
        put(&format!("cpu{n}/online"), "1".into());
        for (name, value) in place(n) {
            put(&format!("cpu{n}/topology/{name}"), value);
        }
        for (i, cache) in caches.iter().enumerate() {
            for (name, value) in describe(n, cache) {
                put(&format!("cpu{n}/cache/index{i}/{name}"), value);
            }
        }
    }
}

/// The files of `cpuN/topology`.
fn place(n: usize) -> Vec<(&'static str, String)> {
    let Some(place) = topology::place(n) else {
        return Vec::new();
    };
    let count = cpu::count();
    let core = alike(n, topology::place);
    let package = alike(n, |n| topology::place(n).map(|p| p.package));
    let mut files = alloc::vec![
        ("core_id", format!("{}", place.core)),
        ("physical_package_id", format!("{}", place.package)),
    ];
    // Each under its old name as well.
    for (set, names) in [
        (
            &core,
            [
                "core_cpus",
                "core_cpus_list",
                "thread_siblings",
                "thread_siblings_list",
            ],
        ),
        (
            &package,
            [
                "package_cpus",
                "package_cpus_list",
                "core_siblings",
                "core_siblings_list",
            ],
        ),
    ] {
        let [bits, ranges, old_bits, old_ranges] = names;
        files.extend([(bits, mask(set, count)), (old_bits, mask(set, count))]);
        files.extend([(ranges, list(set)), (old_ranges, list(set))]);
    }
    files
}

/// The files of `cpuN/cache/indexM`.
fn describe(n: usize, cache: &Cache) -> Vec<(&'static str, String)> {
    let kind = match cache.kind {
        CacheKind::Data => "Data",
        CacheKind::Instruction => "Instruction",
        CacheKind::Unified => "Unified",
    };
    let shared = alike(n, |n| cache.id(n));
    let mut files = alloc::vec![
        ("level", format!("{}", cache.level)),
        ("type", kind.into()),
        ("size", format!("{}K", cache.size() >> 10)),
        ("coherency_line_size", format!("{}", cache.line)),
        ("physical_line_partition", format!("{}", cache.partitions)),
        ("ways_of_associativity", format!("{}", cache.ways)),
        ("number_of_sets", format!("{}", cache.sets)),
        ("shared_cpu_map", mask(&shared, cpu::count())),
        ("shared_cpu_list", list(&shared)),
    ];
    files.extend(cache.id(n).map(|id| ("id", format!("{id}"))));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_linux_writes_them() {
        assert_eq!(list(&[0]), "0");
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(list(&[]), "");
        assert_eq!(mask(&[0, 1], 2), "3");
        assert_eq!(mask(&[1], 6), "02");
        assert_eq!(mask(&[0, 31], 32), "80000001");
        assert_eq!(mask(&[33], 36), "2,00000000");
        assert_eq!(mask(&[0, 63], 64), "80000000,00000001");
    }

    #[test]
    fn a_cpu_is_among_those_like_it() {
        for n in all() {
            let files = place(n);
            let told = |name| files.iter().find(|(n, _)| *n == name).unwrap().1.clone();
            assert_eq!(told("core_cpus_list"), told("thread_siblings_list"));
            assert_eq!(told("package_cpus"), told("core_siblings"));
            assert!(alike(n, topology::place).contains(&n));
        }
        assert_eq!(
            list(&alike(0, |n| n > 5)),
            list(&all()[..6.min(all().len())])
        );
    }
}
