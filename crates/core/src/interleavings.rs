//! All orders in which the steps of two tasks can come, for tests of what one of them sees while the other works.

/// Whose step comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Reader,
    Other,
}

/// Every order of so many steps of a reader and of another.
pub(crate) fn of(reader: usize, other: usize) -> Vec<Vec<Who>> {
    let after = |who, rest: Vec<Vec<Who>>| rest.into_iter().map(move |rest| [vec![who], rest].concat());
    let mut orders = Vec::new();
    if reader > 0 {
        orders.extend(after(Who::Reader, of(reader - 1, other)));
    }
    if other > 0 {
        orders.extend(after(Who::Other, of(reader, other - 1)));
    }
    if orders.is_empty() { vec![Vec::new()] } else { orders }
}

#[test]
fn every_order_comes_once() {
    let orders = of(2, 3);
    assert_eq!(orders.len(), 10);
    assert!(orders.iter().all(|order| order.iter().filter(|who| **who == Who::Reader).count() == 2));
    assert!(orders.iter().enumerate().all(|(at, order)| !orders[..at].contains(order)));
}
