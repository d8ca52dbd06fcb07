//! NVMe disks have a pair of queues for each CPU, and an interrupt that goes there. It is
//! QEMU that tells: what it is asked by which queue, and whom it interrupts.

use anyhow::{Context as _, Result, bail, ensure};
use skep_qemu::{
    Bus, Machine,
    disks::{disk_image, run_beside_nginx, scripted, start_with_nginx, tools},
    machine::escape,
    node::TempFolder,
    seconds,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// CPUs, and pairs of queues.
const CPUS: u32 = 4;
/// Reads by a program on the first CPU, and by how many more on each one after it: what
/// one queue has carried is then not what another should have.
const READS: u32 = 100;
/// Reads besides those, in a queue: the node looks for partitions and a ramdisk's traces,
/// the program's shell may be moved.
const OTHERS: u32 = 40;

/// Command of NVM Express to read (NVM Command Set 1.0, figure 15).
const READ: &str = "0x2";

/// What QEMU's log says of the controller.
#[derive(Debug, Default)]
struct Told {
    /// Pairs that were made: the vector of each, and whether it interrupts.
    made: BTreeMap<u32, (u32, bool)>,
    /// Reads by the number of the queue.
    reads: BTreeMap<u32, u32>,
    /// By vector and the CPU that heard of it, how often.
    heard: BTreeMap<(u32, u32), u32>,
}

/// The value after `name` and one of `between` in a line of QEMU's log.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.split_once(name)?.1.trim_start_matches([' ', '=']);
    rest.split([' ', ',']).next()
}

fn number(line: &str, name: &str) -> Result<u32> {
    let text = value(line, name).with_context(|| format!("no {name} in {line:?}"))?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.with_context(|| format!("{name} in {line:?}"))
}

/// QEMU interrupts in the thread that completes a request and holds its lock: the message
/// of a vector is the next one that it delivers.
fn read_log(log: &str) -> Result<Told> {
    let mut told = Told::default();
    let mut raised = None;
    for line in log.lines() {
        if line.contains("pci_nvme_create_cq") {
            let made = (number(line, "vector")?, number(line, "ien")? == 1);
            told.made.insert(number(line, "cqid")?, made);
        } else if line.contains("pci_nvme_io_cmd") {
            if value(line, " opc") == Some(READ) {
                *told.reads.entry(number(line, "sqid")?).or_default() += 1;
            }
        } else if line.contains("pci_nvme_irq_msix") {
            raised = Some(number(line, "vector")?);
        } else if line.contains("apic_deliver_irq")
            && let Some(vector) = raised.take()
        {
            let cpu = number(line, "dest")?;
            *told.heard.entry((vector, cpu)).or_default() += 1;
        }
    }
    Ok(told)
}

#[test]
fn nvme_has_queues_and_an_interrupt_for_each_cpu() -> Result<()> {
    const SCRIPT: &str = "for cpu in 0 1 2 3; do
            count=$(($1 * (cpu + 1)))
            taskset -c $cpu dd if=/dev/nvme0n1 of=/dev/null bs=4096 count=$count iflag=direct \
                status=none || exit 11
        done";
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let log = folder.path().join("trace");
    let mut machine = Machine::new("physical-queues").cpus(CPUS);
    for event in ["create_cq", "io_cmd", "irq_msix"] {
        machine = machine.option("-trace", &format!("pci_nvme_{event}"));
    }
    let machine = machine
        .option("-trace", "apic_deliver_irq")
        .option("-D", &escape(&log))
        .disk_on(Bus::Nvme, "d0", &file);
    let image = tools()?;
    let capsule = scripted("reads", &image, SCRIPT, &[&READS.to_string()], &["nvme0n1"]);
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    run_beside_nginx(&node, "reads", seconds(120))?;
    node.shut_down(seconds(60))?;
    let told = read_log(&fs::read_to_string(&log)?)?;
    let mut apics = BTreeSet::new();
    for cpu in 0..CPUS {
        let queue = cpu + 1;
        let made = told.made.get(&queue);
        ensure!(made == Some(&(queue, true)), "queue {queue}: {told:?}");
        let reads = told.reads.get(&queue).copied().unwrap_or(0);
        let wanted = READS * queue;
        ensure!(
            (wanted..=wanted + OTHERS).contains(&reads),
            "queue {queue} has carried {reads} reads, not {wanted}: {told:?}"
        );
        // By which APIC ID a CPU goes is not told: CPUs are counted as they come up.
        let mut by = told
            .heard
            .iter()
            .filter(|((vector, _), _)| *vector == queue);
        let (Some(((_, apic), heard)), None) = (by.next(), by.next()) else {
            bail!("vector {queue} does not go to one CPU alone: {told:?}");
        };
        ensure!(*heard >= wanted / 2, "CPU {cpu} heard of {heard}: {told:?}");
        ensure!(apics.insert(*apic), "two go to one CPU: {told:?}");
    }
    Ok(())
}
