//! In which order things come that depend on each other.

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Something depends on what does not exist.
    #[error("'{dependent}' comes after '{dependency}', which does not exist")]
    Unknown {
        /// What depends.
        dependent: String,
        /// What it depends on.
        dependency: String,
    },
    /// Something depends, in the end, on itself.
    #[error("there is no first among {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// Two have the same name.
    #[error("'{0}' is there twice")]
    Duplicate(String),
}

/// Something with a name, and the names of what comes before it.
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    pub(super) after: &'a [String],
}

/// The items' positions in an order in which each comes after what it depends on, and otherwise in
/// the order given.
///
/// # Errors
/// [`OrderError`].
pub(super) fn of(items: &[Item<'_>]) -> Result<Vec<usize>, OrderError> {
    let mut visits = Visits { items, marks: vec![Mark::New; items.len()], order: Vec::new() };
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|earlier| earlier.name == item.name) {
            return Err(OrderError::Duplicate(item.name.to_owned()));
        }
    }
    for index in 0..items.len() {
        visits.visit(index, &mut Vec::new())?;
    }
    Ok(visits.order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    /// On the way to what it depends on.
    Open,
    Done,
}

struct Visits<'a> {
    items: &'a [Item<'a>],
    marks: Vec<Mark>,
    order: Vec<usize>,
}

impl Visits<'_> {
    /// Puts an item into the order, after what it depends on. `path` leads to it.
    fn visit(&mut self, index: usize, path: &mut Vec<usize>) -> Result<(), OrderError> {
        match self.marks[index] {
            Mark::Done => return Ok(()),
            Mark::Open => return Err(self.cycle(index, path)),
            Mark::New => self.marks[index] = Mark::Open,
        }
        path.push(index);
        for dependency in self.items[index].after {
            self.visit(self.position(index, dependency)?, path)?;
        }
        path.pop();
        self.marks[index] = Mark::Done;
        self.order.push(index);
        Ok(())
    }

    fn position(&self, dependent: usize, dependency: &str) -> Result<usize, OrderError> {
        let found = self.items.iter().position(|item| item.name == dependency);
        found.ok_or_else(|| OrderError::Unknown {
            dependent: self.items[dependent].name.to_owned(),
            dependency: dependency.to_owned(),
        })
    }

    fn cycle(&self, again: usize, path: &[usize]) -> OrderError {
        let begin = path.iter().position(|index| *index == again).unwrap_or_default();
        let around = path[begin..].iter().chain([&again]);
        OrderError::Cycle(around.map(|index| self.items[*index].name.to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with what they come after: `c:a,b` comes after `a` and `b`.
    #[track_caller]
    fn check(items: &[&str], expected: Result<&[&str], &str>) {
        let parsed: Vec<(String, Vec<String>)> = items
            .iter()
            .map(|item| {
                let (name, after) = item.split_once(':').unwrap_or((item, ""));
                let after = after.split(',').filter(|name| !name.is_empty());
                (name.to_owned(), after.map(str::to_owned).collect())
            })
            .collect();
        let items: Vec<Item<'_>> =
            parsed.iter().map(|(name, after)| Item { name, after }).collect();
        let order = of(&items).map_err(|error| error.to_string());
        let names =
            order.map(|order| order.iter().map(|index| items[*index].name).collect::<Vec<_>>());
        assert_eq!(names.as_deref(), expected.map_err(str::to_owned).as_ref().map(|names| *names));
    }

    #[test]
    fn what_depends_comes_after_and_the_rest_stays_as_it_is() {
        check(&[], Ok(&[]));
        check(&["a", "b", "c"], Ok(&["a", "b", "c"]));
        check(&["a:c", "b", "c"], Ok(&["c", "a", "b"]));
        check(&["d:b,c", "b:a", "c:a", "a"], Ok(&["a", "b", "c", "d"]));
    }

    #[test]
    fn what_has_no_order_is_told() {
        check(&["a:b"], Err("'a' comes after 'b', which does not exist"));
        check(&["a:a"], Err("there is no first among a -> a"));
        check(&["x:a", "a:b", "b:c", "c:a"], Err("there is no first among a -> b -> c -> a"));
        check(&["a", "b", "a"], Err("'a' is there twice"));
    }
}
