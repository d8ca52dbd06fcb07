//! The driver against a TPM that keeps to the rules, and against one that does not.

use crate::command::{INITIALIZE, RETRY, SELF_TEST, STARTUP};
use crate::fake::{Fake, Flaw};
use crate::pcr::{PCR_EXTEND, PCR_READ};
use crate::transport::Transport;
use crate::{Bank, PcrSet, Tpm, TpmError};
use core::time::Duration;
use proptest::prelude::*;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

const WITHIN: Duration = Duration::from_secs(5);

/// A response without sessions.
fn response(code: u32, parameters: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 0x01];
    bytes.extend((10 + parameters.len() as u32).to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend(parameters);
    bytes
}

/// A response with the session of a password.
fn authorised(parameters: &[u8]) -> Vec<u8> {
    let mut inner = (parameters.len() as u32).to_be_bytes().to_vec();
    inner.extend(parameters);
    inner.extend([0, 0, 1, 0, 0]);
    let mut bytes = response(0, &inner);
    bytes[1] = 2;
    bytes
}

/// What a TPM answers to [`Tpm::open`], after [`STARTUP`].
fn opening() -> Vec<Vec<u8>> {
    let mut properties = vec![0, 0, 0, 0, 6, 0, 0, 0, 3];
    for (property, value) in [
        (0x105u32, u32::from_be_bytes(*b"IBM ")),
        (0x10b, 0x0001_0002),
        (0x10c, 3),
    ] {
        properties.extend(property.to_be_bytes());
        properties.extend(value.to_be_bytes());
    }
    let mut banks = vec![0, 0, 0, 0, 5, 0, 0, 0, 2];
    banks.extend([0, 4, 3, 0, 0, 0]);
    banks.extend([0, 0xb, 3, 0xff, 0xff, 0xff]);
    vec![
        response(0, &[0, 1, 7]),
        response(0, &properties),
        response(0, &banks),
    ]
}

fn open(fake: &Fake) -> Result<Tpm, TpmError> {
    Tpm::open(fake.tis())
}

/// An open TPM that gives `answers` next.
fn opened(answers: &[Vec<u8>]) -> (Tpm, Fake) {
    let mut all = vec![response(INITIALIZE, &[])];
    all.extend(opening());
    all.extend_from_slice(answers);
    let fake = Fake::with(Flaw::None, &all);
    let tpm = open(&fake).unwrap();
    fake.state().commands.clear();
    (tpm, fake)
}

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

fn both(fake: &Fake) -> [Box<dyn Transport>; 2] {
    [fake.tis(), fake.crb()]
}

#[test]
fn commands_and_responses_pass_whole() {
    let answer = response(0, &[7; 100]);
    for which in 0..2 {
        let fake = Fake::with(Flaw::None, core::slice::from_ref(&answer));
        let transport = &both(&fake)[which];
        for len in [12usize, 13, 200] {
            let mut command = vec![0x80, 1];
            command.extend((len as u32).to_be_bytes());
            command.resize(len, 9);
            let mut buffer = [0; 200];
            let got = transport.exchange(&command, &mut buffer, WITHIN);
            assert_eq!(got, Ok(answer.len()), "{}", transport.name());
            assert_eq!(buffer[..answer.len()], answer);
            assert_eq!(fake.state().commands.pop(), Some(command));
        }
    }
}

/// Both interfaces, one flaw each time: an error that fits, in bounded time, and no more
/// than a few hundred looks.
#[test]
fn a_tpm_that_misbehaves_is_given_up() {
    use TpmError::*;
    let all = [
        (Flaw::Held, Some(NoLocality), Some(NoLocality)),
        (Flaw::NeverReady, Some(NotReady), Some(NotReady)),
        (Flaw::NoBurst, Some(NotReady), None),
        (Flaw::Trickles, Some(NotReady), None),
        (Flaw::NeverAnswers, Some(Silent), Some(Silent)),
        (Flaw::Insatiable, Some(OutOfStep), None),
        (Flaw::StopsShort, Some(Malformed), None),
        (Flaw::GoesOn, Some(Malformed), None),
        (Flaw::Dies, Some(Gone), Some(Gone)),
        (Flaw::Fails, None, Some(Failed)),
    ];
    for (flaw, tis, crb) in all {
        for (which, wanted) in [tis, crb].into_iter().enumerate() {
            let fake = Fake::with(flaw, &[response(0, &[1; 8])]);
            let transport = &both(&fake)[which];
            let command = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
            let got = transport.exchange(&command, &mut [0; 64], WITHIN);
            let wanted = wanted.map_or(Ok(18), Err);
            assert_eq!(got, wanted, "{flaw:?}, {}", transport.name());
            let s = fake.state();
            assert!(
                s.now < WITHIN * 2 && s.pauses < 700,
                "{flaw:?}: {:?}",
                s.now
            );
            let cancels = which == 1 && matches!(flaw, Flaw::NeverAnswers | Flaw::Dies);
            assert_eq!(s.was_cancelled, cancels, "{flaw:?}");
        }
    }
}

#[test]
fn after_a_flaw_the_next_command_is_served() {
    let fake = Fake::with(Flaw::NeverAnswers, &[response(0, &[])]);
    let command = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x44];
    for transport in both(&fake) {
        fake.state().flaw = Flaw::NeverAnswers;
        assert!(transport.exchange(&command, &mut [0; 64], WITHIN).is_err());
        fake.state().flaw = Flaw::None;
        let again = transport.exchange(&command, &mut [0; 64], WITHIN);
        assert_eq!(again, Ok(10), "{}", transport.name());
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for (len, why) in [
        (9u32, TpmError::Malformed),
        (65, TpmError::TooLong),
        (u32::MAX, TpmError::TooLong),
    ] {
        let mut answer = response(0, &[0; 300]);
        answer[2..6].copy_from_slice(&len.to_be_bytes());
        let fake = Fake::with(Flaw::None, &[answer]);
        for transport in both(&fake) {
            let command = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x44];
            let got = transport.exchange(&command, &mut [0; 64], WITHIN);
            assert_eq!(got, Err(why), "{}", transport.name());
        }
    }
}

#[test]
fn what_a_tpm_is_is_told() {
    let (tpm, _) = opened(&[]);
    let told = tpm.description();
    assert_eq!((&*told.manufacturer, told.firmware), ("IBM", [1, 2, 0, 3]));
    // That of SHA-1 has no register in use.
    assert_eq!(told.banks, [Bank(0xb)]);
    assert!(told.has_sha256());
}

#[test]
fn it_is_started_and_tested_only_where_that_is_needed() {
    let mut answers = vec![response(0, &[]), response(0x153, &[]), response(0, &[])];
    answers.extend(opening().into_iter().skip(1));
    let fake = Fake::with(Flaw::None, &answers);
    open(&fake).unwrap();
    let codes: Vec<u32> = fake.state().commands.iter().map(|c| code(c)).collect();
    assert_eq!(codes[0], STARTUP);
    assert_eq!(codes[2], SELF_TEST);
    let (_, fake) = opened(&[]);
    assert!(fake.state().commands.is_empty());
    let broken = Fake::with(Flaw::None, &[response(0, &[]), response(0x101, &[])]);
    assert_eq!(open(&broken).err(), Some(TpmError::Failed));
    let old = Fake::with(Flaw::None, &[vec![0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0x1e]]);
    assert_eq!(open(&old).err(), Some(TpmError::Old));
}

#[test]
fn a_busy_tpm_is_asked_again_but_not_for_ever() {
    let busy = response(RETRY, &[]);
    let (tpm, fake) = opened(&[busy.clone(), busy.clone(), authorised(&[])]);
    assert_eq!(tpm.extend(9, &[1; 32]), Ok(()));
    let commands = fake.state().commands.clone();
    assert_eq!(commands.len(), 3);
    assert!(commands.iter().all(|c| code(c) == PCR_EXTEND));
    let (tpm, fake) = opened(&[busy]);
    assert_eq!(tpm.extend(9, &[1; 32]), Err(TpmError::NotReady));
    assert!(fake.state().now < Duration::from_secs(10));
}

#[test]
fn registers_are_read_strictly() {
    let good = || {
        let mut p = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0xb, 3, 0, 2, 0];
        p.extend([0, 0, 0, 1, 0, 32]);
        p.extend([7; 32]);
        p
    };
    let read = |parameters: &[u8]| {
        let (tpm, fake) = opened(&[response(0, parameters)]);
        let got = tpm.read(9);
        assert_eq!(code(&fake.state().commands[0]), PCR_READ);
        got
    };
    assert_eq!(read(&good()), Ok([7; 32]));
    for (at, value) in [(9, 4), (12, 4), (17, 2), (19, 31)] {
        let mut wrong = good();
        wrong[at] = value;
        assert_eq!(read(&wrong), Err(TpmError::Malformed), "byte {at}");
    }
    let mut longer = good();
    longer.push(0);
    assert_eq!(read(&longer), Err(TpmError::Malformed));
    assert_eq!(read(&good()[..50]), Err(TpmError::Malformed));
}

#[test]
fn a_response_to_an_authorised_command_has_a_session() {
    let bare = response(0, &[]);
    let mut short = authorised(&[]);
    short.pop();
    short[5] -= 1;
    let mut wrong_tag = authorised(&[]);
    wrong_tag[0] = 0x81;
    let longer = authorised(&[1]);
    for answer in [bare, short, wrong_tag, longer] {
        let (tpm, _) = opened(&[answer]);
        assert_eq!(tpm.extend(9, &[1; 32]), Err(TpmError::Malformed));
    }
}

#[test]
fn random_numbers_come_in_as_many_parts_as_the_tpm_likes() {
    let part = |n: u8| response(0, &[&[0, n], &vec![n; n.into()][..]].concat());
    let (tpm, _) = opened(&[part(10), part(15), part(7)]);
    let mut bytes = [0; 32];
    tpm.random(&mut bytes).unwrap();
    assert_eq!(bytes[..10], [10; 10]);
    assert_eq!(bytes[25..], [7; 7]);
    for lie in [part(0), part(17)] {
        let (tpm, _) = opened(&[lie]);
        assert_eq!(tpm.random(&mut [0; 16]), Err(TpmError::Malformed));
    }
}

#[test]
fn a_policy_that_fails_is_told_from_other_refusals() {
    let session = response(0, &[3, 0, 0, 0, 0, 2, 9, 9]);
    let refused = |code| {
        let ok = response(0, &[]);
        let (tpm, fake) = opened(&[session.clone(), ok.clone(), response(code, &[]), ok]);
        let got = tpm.unseal(0x8100_0001, PcrSet::of(&[9]), |_| ());
        // The session goes back whatever became of it.
        assert_eq!(code_of_last(&fake), 0x165);
        got
    };
    assert_eq!(refused(0x99d), Err(TpmError::OtherState));
    assert_eq!(refused(0x128), Err(TpmError::OtherState));
    assert_eq!(refused(0x18b), Err(TpmError::Refused(0x18b)));
}

fn code_of_last(fake: &Fake) -> u32 {
    code(fake.state().commands.last().unwrap())
}

proptest! {
    /// Whatever a TPM answers, it is a value or an error.
    #[test]
    fn no_answer_is_too_strange(answers in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..80), 1..12))
    {
        let answers: Vec<_> = answers
            .iter()
            .map(|a| if a.first().is_some_and(|f| f % 3 == 0) { authorised(a) } else { response(0, a) })
            .collect();
        let (tpm, _) = opened(&answers);
        let registers = PcrSet::of(&[4, 9, 14, 99]);
        let _ = tpm.read(9);
        let _ = tpm.extend(9, &[0; 32]);
        let _ = tpm.is_kept(0x8100_0001);
        let _ = tpm.seal(0x8100_0001, b"secret", registers);
        let _ = tpm.unseal(0x8100_0001, registers, <[u8]>::len);
        let _ = open(&Fake::with(Flaw::None, &answers));
    }
}
