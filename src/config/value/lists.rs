//! Types with several values, or none.

use serde_json::{Value as Tree, json};

use super::{Bounds, Raw, Value, Wrong, or_word, shorten};

/// What the server chooses where the user does not; written `auto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auto<T> {
    /// The server chooses.
    Chosen,
    /// The user did.
    Given(T),
}

impl<T> Auto<T> {
    /// What the user chose.
    pub const fn given(&self) -> Option<&T> {
        match self {
            Self::Chosen => None,
            Self::Given(value) => Some(value),
        }
    }
}

/// What can be turned off; written `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch<T> {
    /// It is turned off.
    Off,
    /// It is on, and so.
    On(T),
}

impl<T> Switch<T> {
    /// How it is, where it is on.
    pub const fn on(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

const AUTO: &str = "auto";
const NONE: &str = "none";
const OFF: &str = "off";

impl<T: Value> Value for Auto<T> {
    fn expected(bounds: Bounds) -> String {
        format!("{}, or {AUTO}", T::expected(bounds))
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        if text == AUTO { Some(Self::Chosen) } else { T::parse(text, bounds).map(Self::Given) }
    }

    fn read(raw: &Raw, bounds: Bounds) -> Result<Self, Wrong> {
        if *raw == Raw::One(AUTO.to_owned()) {
            return Ok(Self::Chosen);
        }
        let named = |wrong| Wrong { expected: Self::expected(bounds), ..wrong };
        T::read(raw, bounds).map(Self::Given).map_err(named)
    }

    fn show(&self) -> Tree {
        self.given().map_or_else(|| json!(AUTO), T::show)
    }

    fn schema(bounds: Bounds) -> Tree {
        or_word(&T::schema(bounds), AUTO)
    }
}

impl<T: Value> Value for Switch<T> {
    fn expected(bounds: Bounds) -> String {
        format!("{}, or {OFF}", T::expected(bounds))
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        if text == OFF { Some(Self::Off) } else { T::parse(text, bounds).map(Self::On) }
    }

    fn show(&self) -> Tree {
        self.on().map_or_else(|| json!(OFF), T::show)
    }

    fn schema(bounds: Bounds) -> Tree {
        or_word(&T::schema(bounds), OFF)
    }
}

/// `none` for nothing.
impl<T: Value> Value for Option<T> {
    fn expected(bounds: Bounds) -> String {
        format!("{}, or {NONE}", T::expected(bounds))
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        if text == NONE { Some(None) } else { T::parse(text, bounds).map(Some) }
    }

    fn show(&self) -> Tree {
        self.as_ref().map_or_else(|| json!(NONE), T::show)
    }

    fn schema(bounds: Bounds) -> Tree {
        or_word(&T::schema(bounds), NONE)
    }
}

/// A list in a file; elsewhere a text in which commas separate.
impl<T: Value> Value for Vec<T> {
    const SECRET: bool = T::SECRET;

    fn expected(bounds: Bounds) -> String {
        T::expected(bounds)
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        Self::read(&Raw::One(text.to_owned()), bounds).ok()
    }

    fn read(raw: &Raw, bounds: Bounds) -> Result<Self, Wrong> {
        let items = match raw {
            Raw::One(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(str::to_owned).collect()
            }
            Raw::Many(items) => items.clone(),
        };
        let wrong = |item: &str| Wrong { expected: T::expected(bounds), got: shorten(item) };
        items.iter().map(|item| T::parse(item, bounds).ok_or_else(|| wrong(item))).collect()
    }

    fn show(&self) -> Tree {
        self.iter().map(T::show).collect()
    }

    fn schema(bounds: Bounds) -> Tree {
        json!({ "type": "array", "items": T::schema(bounds) })
    }
}
