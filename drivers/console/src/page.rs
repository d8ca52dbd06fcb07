//! The node's status as lines of text, for a screen and for a terminal alike.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The node's status, part by part, so that each place shows as much as it has room for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What the node is and how it is; always shown.
    pub head: Vec<String>,
    /// A line for each capsule.
    pub capsules: Vec<String>,
    /// The last messages, oldest first.
    pub messages: Vec<String>,
    /// What the QR code says; empty for none. With a node ID in it (behind a `#`) it is an
    /// enrolment code.
    pub code: String,
}

/// Messages that stay when there are many capsules.
const MESSAGES_MIN: usize = 3;

/// The lines of a page of so many rows. Which capsules and messages have no room is told,
/// and the oldest messages go first. `footer` is the last line.
pub(crate) fn lines(status: &Status, rows: usize, footer: &str) -> Vec<String> {
    // Low enough on a terminal to be below the code, which would cover its end.
    let enrol = status.code.contains('#');
    let enrol = enrol.then(|| format!(" Enrol it: skep enrol {}", status.code));
    // Two headings, three empty lines and the footer.
    let room = rows.saturating_sub(status.head.len() + 6 + usize::from(enrol.is_some()));
    let messages = status.messages.len().min(MESSAGES_MIN);
    let capsules = cut(&status.capsules, room.saturating_sub(messages));
    let room = room.saturating_sub(capsules.len());
    let first = status.messages.len().saturating_sub(room);
    let mut all = status.head.clone();
    all.extend(["", " Capsules"].map(String::from));
    all.extend(capsules);
    all.extend(["", " Last messages"].map(String::from));
    let last = status.messages.iter().skip(first);
    all.extend(last.map(|line| format!("   {line}")));
    all.push(String::new());
    all.extend(enrol);
    all.push(String::from(footer));
    all.truncate(rows);
    all
}

/// At most `room` lines, the last of which tells how many more there are.
fn cut(lines: &[String], room: usize) -> Vec<String> {
    if lines.len() <= room {
        return lines.to_vec();
    }
    let shown = room.saturating_sub(1);
    let mut some: Vec<String> = lines.iter().take(shown).cloned().collect();
    some.push(format!("   and {} more", lines.len() - shown));
    some
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn status(capsules: usize, messages: usize) -> Status {
        let many = |what: &str, n| (0..n).map(|i| format!("{what} {i}")).collect();
        Status {
            head: vec![String::new(), " name".into()],
            capsules: many("capsule", capsules),
            messages: many("message", messages),
            code: String::new(),
        }
    }

    #[test]
    fn what_fits_is_shown_whole() {
        let all = lines(&status(2, 1), 24, " Keys");
        let expected = [
            "",
            " name",
            "",
            " Capsules",
            "capsule 0",
            "capsule 1",
            "",
            " Last messages",
            "   message 0",
            "",
            " Keys",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn many_capsules_leave_room_for_the_last_messages() {
        let all = lines(&status(30, 9), 24, " Keys");
        assert_eq!(all.len(), 24);
        assert!(all.contains(&"   and 18 more".into()), "{all:?}");
        assert!(all.contains(&"   message 8".into()) && !all.contains(&"   message 5".into()));
        assert_eq!(all.last().map(String::as_str), Some(" Keys"));
    }

    #[test]
    fn the_enrolment_code_is_told_as_text_too() {
        let mut with = status(30, 9);
        with.code = "http://10.0.2.15:8080/#8386-b964-61ab-e607-bd83".into();
        let all = lines(&with, 24, " Keys");
        assert_eq!(all.len(), 24);
        let text = " Enrol it: skep enrol http://10.0.2.15:8080/#8386-b964-61ab-e607-bd83";
        assert_eq!(all[22], text);
        assert!(text.len() < crate::terminal::COLUMNS);
        with.code = "http://10.0.2.15:8080/".into();
        assert!(!lines(&with, 24, " Keys").concat().contains("enrol"));
    }

    proptest! {
        #[test]
        fn a_page_is_never_longer_than_the_screen(c in 0usize..40, m in 0usize..40, rows in 0usize..60) {
            prop_assert!(lines(&status(c, m), rows, "f").len() <= rows);
        }
    }
}
