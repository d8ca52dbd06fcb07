//! The tree blob: round trips, order, limits.

mod common;

use proptest::prelude::*;
use skep_api::Hash;
use skep_api::tree::{MAX_DEPTH, Meta, NodeKind, TreeBuilder, TreeError, TreeView};
use std::collections::BTreeMap;

fn walk<'a>(view: &TreeView<'a>, path: &str) -> Option<skep_api::tree::Node<'a>> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.into_iter().try_fold(view.root(), |node, part| {
        view.lookup(&node, part.as_bytes())
    })
}

#[test]
fn every_kind_of_node_comes_back() {
    let bytes = common::tree();
    let view = TreeView::parse(&bytes).unwrap();
    assert_eq!(view.root().mode, 0o711);
    assert_eq!(walk(&view, "/tmp").unwrap().mode, 0o1777);
    let hosts = walk(&view, "/etc/hosts").unwrap();
    assert_eq!(
        hosts.kind,
        NodeKind::File {
            size: 5,
            hash: Hash::of(b"hosts")
        }
    );
    assert_eq!(
        (hosts.mode, hosts.uid, hosts.gid, hosts.mtime),
        (0o644, 1, 2, -3)
    );
    assert_eq!(view.node(hosts.parent).unwrap().name, b"etc");
    assert_eq!(
        walk(&view, "/bin").unwrap().kind,
        NodeKind::Symlink { target: b"usr/bin" }
    );
    assert!(walk(&view, "/etc/shadow").is_none());
    assert!(view.lookup(&hosts, b"x").is_none());
    let names: Vec<_> = view.children(&view.root()).map(|node| node.name).collect();
    assert_eq!(names, [&b"bin"[..], b"etc", b"tmp", b"usr"]);
    assert_eq!(view.nodes().count(), view.node_count() as usize);
}

#[test]
fn every_prefix_is_refused() {
    let bytes = common::tree();
    for len in 0..bytes.len() {
        let error = TreeView::parse(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, TreeError::Truncated { .. }),
            "{len}: {error:?}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(TreeView::parse(&longer).unwrap_err(), TreeError::Excess);
}

#[test]
fn the_builder_refuses_what_the_view_would() {
    let meta = Meta::DIRECTORY;
    let mut tree = TreeBuilder::new();
    tree.add_file(b"a/b", meta, 1, Hash::default()).unwrap();
    assert_eq!(
        tree.add_file(b"a/b", meta, 1, Hash::default()),
        Err(TreeError::Duplicate)
    );
    assert_eq!(
        tree.add_file(b"a/b/c", meta, 1, Hash::default()),
        Err(TreeError::NotADirectory)
    );
    assert_eq!(
        tree.add_file(b"a/../c", meta, 1, Hash::default()),
        Err(TreeError::BadPath)
    );
    assert_eq!(
        tree.add_file(b"/", meta, 1, Hash::default()),
        Err(TreeError::Duplicate)
    );
    assert_eq!(
        tree.add_directory(&[b'x'; 256], meta),
        Err(TreeError::BadPath)
    );
    assert_eq!(
        tree.add_symlink(b"l", meta, b""),
        Err(TreeError::BadTarget { node: 0 })
    );
    assert_eq!(tree.add_directory(b"a", meta), Ok(()));
    assert_eq!(tree.add_directory(b"a", meta), Err(TreeError::Duplicate));
    tree.add_directory(
        b"m",
        Meta {
            mode: 0o10000,
            ..meta
        },
    )
    .unwrap();
    assert_eq!(tree.finish().unwrap_err(), TreeError::BadMode { node: 2 });
}

#[test]
fn depth_is_limited_at_both_ends() {
    let deep = |depth: usize| "d/".repeat(depth);
    let mut tree = TreeBuilder::new();
    tree.add_directory(deep(MAX_DEPTH as usize).as_bytes(), Meta::DIRECTORY)
        .unwrap();
    let bytes = tree.finish().unwrap();
    assert_eq!(TreeView::parse(&bytes).unwrap().node_count(), MAX_DEPTH + 1);
    let too_deep = tree.add_directory(deep(MAX_DEPTH as usize + 1).as_bytes(), Meta::DIRECTORY);
    assert_eq!(too_deep, Err(TreeError::TooDeep));
}

/// Names of one to three characters from a small alphabet, so that they meet.
fn paths() -> impl Strategy<Value = BTreeMap<String, u64>> {
    prop::collection::btree_map(
        "([ab.-]{0,2}[xyé]/){0,3}[ab]{0,2}[XYZ]",
        any::<u64>(),
        0..40,
    )
}

proptest! {
    #[test]
    fn what_is_added_is_found(files in paths()) {
        let mut tree = TreeBuilder::new();
        for (path, number) in &files {
            let meta = Meta { mode: 0o600, uid: 0, gid: 0, mtime: *number as i64 };
            tree.add_file(path.as_bytes(), meta, number >> 24, Hash::of(path.as_bytes())).unwrap();
        }
        let bytes = tree.finish().unwrap();
        let view = TreeView::parse(&bytes).unwrap();
        for (path, number) in &files {
            let node = walk(&view, path).unwrap();
            let kind = NodeKind::File { size: number >> 24, hash: Hash::of(path.as_bytes()) };
            prop_assert_eq!((node.mtime, node.kind), (*number as i64, kind));
        }
        let found = view.nodes().filter(|node| matches!(node.kind, NodeKind::File { .. })).count();
        prop_assert_eq!(found, files.len());
    }

    #[test]
    fn the_encoding_is_canonical(at in any::<prop::sample::Index>(), bit in 0..8u32) {
        // Every single bit either is content (and shows) or makes the tree invalid.
        let bytes = common::tree();
        let mut other = bytes.clone();
        let at = at.index(bytes.len());
        other[at] ^= 1 << bit;
        if let Ok(view) = TreeView::parse(&other) {
            let before: Vec<_> = TreeView::parse(&bytes).unwrap().nodes().collect();
            prop_assert_ne!(before, view.nodes().collect::<Vec<_>>());
        }
    }
}
