//! Names of device classes (PCI Code and ID Assignment 1.11).

/// What devices of a class are, in a few words.
#[must_use]
pub fn class_name(class: u8, subclass: u8, interface: u8) -> &'static str {
    match (class, subclass, interface) {
        (0x00, 0x01, _) => "old VGA device",
        (0x00, ..) => "old device",
        (0x01, 0x00, _) => "SCSI controller",
        (0x01, 0x01, _) => "IDE controller",
        (0x01, 0x04, _) => "RAID controller",
        (0x01, 0x06, 0x01) => "AHCI controller",
        (0x01, 0x06, _) => "SATA controller",
        (0x01, 0x07, _) => "SAS controller",
        (0x01, 0x08, 0x02) => "NVMe controller",
        (0x01, 0x08, _) => "flash memory controller",
        (0x01, ..) => "storage controller",
        (0x02, 0x00, _) => "Ethernet controller",
        (0x02, ..) => "network controller",
        (0x03, 0x00, _) => "VGA controller",
        (0x03, ..) => "display controller",
        (0x04, 0x03, _) => "audio device",
        (0x04, ..) => "multimedia device",
        (0x05, ..) => "memory controller",
        (0x06, 0x00, _) => "host bridge",
        (0x06, 0x01, _) => "ISA bridge",
        (0x06, 0x04, _) => "PCI bridge",
        (0x06, ..) => "bridge",
        (0x07, 0x00, _) => "serial port",
        (0x07, ..) => "communication controller",
        (0x08, 0x02, _) => "timer",
        (0x08, 0x05, _) => "SD card controller",
        (0x08, 0x06, _) => "IOMMU",
        (0x08, ..) => "system device",
        (0x09, ..) => "input device",
        (0x0a, ..) => "docking station",
        (0x0b, ..) => "processor",
        (0x0c, 0x03, 0x00) => "UHCI controller",
        (0x0c, 0x03, 0x10) => "OHCI controller",
        (0x0c, 0x03, 0x20) => "EHCI controller",
        (0x0c, 0x03, 0x30) => "xHCI controller",
        (0x0c, 0x05, _) => "SMBus controller",
        (0x0c, 0x07, _) => "IPMI controller",
        (0x0c, ..) => "serial bus controller",
        (0x0d, ..) => "wireless controller",
        (0x10, ..) => "encryption controller",
        (0x11, ..) => "signal processing controller",
        (0x12, ..) => "processing accelerator",
        _ => "device of unknown class",
    }
}

#[cfg(test)]
mod tests {
    use super::class_name;

    #[test]
    fn the_interface_tells_what_the_class_does_not() {
        assert_eq!(class_name(1, 6, 1), "AHCI controller");
        assert_eq!(class_name(1, 6, 0), "SATA controller");
        assert_eq!(class_name(0x0c, 3, 0x30), "xHCI controller");
        assert_eq!(class_name(0xff, 0, 0), "device of unknown class");
    }
}
