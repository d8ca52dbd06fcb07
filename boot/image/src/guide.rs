//! What people find on the partition `SKEP` beside their `skep.toml`.

/// `README.TXT`, with line ends for every computer's simplest editor.
pub(crate) const README: &str = "\
This partition belongs to you. A Skep node reads it each time it boots.\r\n\
\r\n\
skep.toml   The node's name, owner, network and console. Lines that begin with # are\r\n\
            comments. When the node cannot use the file it says which line is wrong on\r\n\
            its screen and on its serial line, and starts with its defaults.\r\n\
manifests   Signed manifests (skep sign), each a file ending in .manifest. The node\r\n\
            starts those that its owner signed and whose image its ramdisk holds.\r\n\
\r\n\
Keep the volume's name, SKEP: the node finds the partition by it. The other partition\r\n\
of this medium is the system itself; do not change it.\r\n";
