//! Claims about what is tried next, without a database: a script answers for it.

use super::*;

/// Drives a write of events of these companies; `answer` says what the database does with a group.
fn drive(
    companies: &[&str],
    answer: impl FnMut(&[u32]) -> Result<Fate, Failure>,
) -> (Vec<Option<Outcome>>, Vec<Vec<u32>>, Commit) {
    let mut commit = Commit::default();
    let (outcomes, tried) = drive_on(&mut commit, companies, answer);
    (outcomes, tried, commit)
}

fn drive_on(
    commit: &mut Commit,
    companies: &[&str],
    mut answer: impl FnMut(&[u32]) -> Result<Fate, Failure>,
) -> (Vec<Option<Outcome>>, Vec<Vec<u32>>) {
    let mut tried = Vec::new();
    commit.begin(companies.iter().copied());
    loop {
        assert!(tried.len() < 1000, "no end: {tried:?}");
        match commit.step() {
            Step::Done => break,
            Step::Open { event } => commit.opened(companies[event as usize]),
            Step::Write(events) => {
                let events = events.to_vec();
                match answer(&events) {
                    Ok(fate) => commit.written(&vec![fate; events.len()]),
                    Err(failure) => commit.failed(failure),
                }
                tried.push(events);
            }
        }
    }
    (commit.outcomes().to_vec(), tried)
}

fn failure(class: Class, event: Option<usize>) -> Failure {
    Failure { class, sqlstate: "x".into(), message: "m".into(), event }
}

fn is_bad(outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Bad { .. }))
}

#[test]
fn bad_events_are_found_and_the_others_committed_in_order() {
    let bad = [3, 64, 65, 99];
    let answer = |events: &[u32]| {
        let has_bad = events.iter().any(|event| bad.contains(event));
        if has_bad { Err(failure(Class::Data, None)) } else { Ok(Fate::Applied) }
    };
    let (outcomes, tried, _) = drive(&["a"; 100], answer);
    let found: Vec<usize> = (0..100).filter(|event| is_bad(&outcomes[*event])).collect();
    assert_eq!(found, [3, 64, 65, 99]);
    assert!(outcomes.iter().all(Option::is_some) && tried.len() < 60, "{}", tried.len());
    let committed = tried.iter().filter(|events| events.iter().all(|event| !bad.contains(event)));
    let committed: Vec<u32> = committed.flatten().copied().collect();
    assert!(committed.is_sorted() && committed.len() == 96);
}

#[test]
fn trouble_of_the_database_settles_nothing_more() {
    let mut calls = 0;
    let (outcomes, ..) = drive(&["a"; 8], |events| {
        calls += 1;
        match calls {
            1 => Err(failure(Class::Data, None)),
            2 => Ok(Fate::Applied),
            _ => Err(failure(Class::Transient, (events.len() > 1).then_some(0))),
        }
    });
    let settled: Vec<bool> = outcomes.iter().map(Option::is_some).collect();
    assert_eq!(settled, [true, true, true, true, false, false, false, false]);
}

#[test]
fn other_writers_are_met_again_a_bounded_number_of_times() {
    let mut calls = 0;
    let (outcomes, ..) = drive(&["a"; 2], |_| {
        calls += 1;
        if calls < 5 { Err(failure(Class::Conflict, None)) } else { Ok(Fate::Stale) }
    });
    assert_eq!(outcomes, vec![Some(Outcome::Committed(Fate::Stale)); 2]);
    let (outcomes, tried, commit) = drive(&["a"; 2], |_| Err(failure(Class::Conflict, None)));
    assert_eq!((outcomes, tried.len()), (vec![None, None], CONFLICTS_MAX as usize));
    assert!(commit.away().is_some());
}

#[test]
fn a_company_at_fault_waits_and_the_others_go_on() {
    let companies = ["a", "b", "a", "c", "b"];
    // Its tables are locked.
    let (outcomes, tried, commit) = drive(&companies, |events| {
        events
            .iter()
            .position(|event| [1, 4].contains(event))
            .map_or(Ok(Fate::Applied), |place| Err(failure(Class::Busy, Some(place))))
    });
    let settled: Vec<bool> = outcomes.iter().map(Option::is_some).collect();
    assert_eq!(settled, [true, false, true, true, false]);
    assert_eq!(tried, [vec![0, 1, 2, 3, 4], vec![0, 2, 3]]);
    assert!(commit.away().is_some());
    // Its schema is missing, also after it was looked at again.
    let (outcomes, tried, commit) = drive(&companies, |events| {
        events
            .iter()
            .position(|event| *event == 1)
            .map_or(Ok(Fate::Applied), |place| Err(failure(Class::Schema, Some(place))))
    });
    assert!(matches!(outcomes[1], Some(Outcome::Held { .. })), "{outcomes:?}");
    assert!(matches!(outcomes[4], Some(Outcome::Held { .. })) && commit.away().is_none());
    assert_eq!(tried.len(), 3);
}

#[test]
fn companies_share_a_transaction_up_to_a_bound() {
    let names: Vec<String> = (0..COMPANIES_MAX + 3).map(|n| n.to_string()).collect();
    let companies: Vec<&str> =
        names.iter().cycle().take(names.len() * 2).map(String::as_str).collect();
    let mut commit = Commit::default();
    // New companies, a few at a time.
    let mut writes = 0;
    loop {
        let (outcomes, tried) = drive_on(&mut commit, &companies, |_| Ok(Fate::Applied));
        assert!(commit.away().is_none() && writes < 20);
        writes += 1;
        if outcomes.iter().all(Option::is_some) {
            assert_eq!(tried.iter().map(Vec::len).collect::<Vec<_>>(), [COMPANIES_MAX * 2, 6]);
            assert!(tried.iter().all(|events| events.is_sorted()));
            break;
        }
        assert_eq!(outcomes.iter().flatten().count(), 2 * writes * OPENS_MAX);
    }
    assert_eq!(writes, names.len().div_ceil(OPENS_MAX));
}

#[test]
fn an_event_whose_horizon_counts_alone_is_written_alone() {
    let mut calls = 0;
    let (outcomes, tried, _) = drive(&["a"; 3], |_| {
        calls += 1;
        Ok(if calls == 1 { Fate::Alone } else { Fate::Applied })
    });
    assert_eq!(tried, [vec![0, 1, 2], vec![0], vec![1], vec![2]]);
    assert_eq!(outcomes, vec![Some(Outcome::Committed(Fate::Applied)); 3]);
}

#[test]
fn a_refused_event_takes_no_fate_of_its_neighbours() {
    let mut commit = Commit::default();
    commit.begin(["a"; 3].into_iter());
    assert_eq!(commit.step(), Step::Open { event: 0 });
    commit.opened("a");
    assert_eq!(commit.step(), Step::Write(&[0, 1, 2]));
    commit.refused(1, &Refused::Timestamp(7));
    commit.written(&[Fate::Applied, Fate::Stale]);
    assert_eq!(commit.step(), Step::Done);
    assert!(is_bad(&commit.outcomes()[1]));
    assert_eq!(commit.outcomes()[2], Some(Outcome::Committed(Fate::Stale)));
    // A company once seen is not asked for again.
    commit.begin(["a"].into_iter());
    assert_eq!(commit.step(), Step::Write(&[0]));
}
