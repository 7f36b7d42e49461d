//! All orders in which the steps of two tasks can come, for tests that carry out a race in each of them.

use std::collections::HashSet;

/// The task whose step comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// The first task.
    One,
    /// The second task.
    Other,
}

/// Returns every order of so many steps of one task and of another.
pub fn of(one: usize, other: usize) -> Vec<Vec<Who>> {
    let after = |who, rest: Vec<Vec<Who>>| rest.into_iter().map(move |rest| [vec![who], rest].concat());
    let mut orders = Vec::new();
    if one > 0 {
        orders.extend(after(Who::One, of(one - 1, other)));
    }
    if other > 0 {
        orders.extend(after(Who::Other, of(one, other - 1)));
    }
    if orders.is_empty() { vec![Vec::new()] } else { orders }
}

/// Returns every beginning of every order, each once: the points at which a crash can end the race.
pub fn beginnings(one: usize, other: usize) -> HashSet<Vec<Who>> {
    let orders = of(one, other);
    orders.iter().flat_map(|order| (0..=order.len()).map(|length| order[..length].to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_once() {
        let orders = of(2, 3);
        assert_eq!(orders.len(), 10);
        assert!(orders.iter().all(|order| order.iter().filter(|who| **who == Who::One).count() == 2));
        assert!(orders.iter().enumerate().all(|(at, order)| !orders[..at].contains(order)));
    }

    #[test]
    fn every_point_of_a_race_is_a_beginning() {
        // None, "1", "2", "11", "12", "21", and the three whole orders.
        assert_eq!(beginnings(2, 1).len(), 9);
        assert!(beginnings(2, 1).contains(&Vec::new()));
    }
}
