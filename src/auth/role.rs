//! What a caller may do.

use super::rule::Deed;

/// What a credential may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Look at everything, and change nothing.
    Read,
    /// Ask models for inferences, and read what that needs.
    Infer,
    /// Change what is served; the others too.
    Manage,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Read, Self::Infer, Self::Manage];

    /// The role's name, such as `infer`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Infer => "infer",
            Self::Manage => "manage",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Infer => 2,
            Self::Manage => 4,
        }
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    /// Whether the role is one of them.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of them is enough for this.
    pub const fn allow(self, deed: Deed) -> bool {
        let enough = match deed {
            Deed::Describe => Role::Read.bit() | Role::Infer.bit(),
            Deed::Read => Role::Read.bit(),
            Deed::Infer => Role::Infer.bit(),
            Deed::Manage => 0,
        };
        self.0 & (enough | Role::Manage.bit()) != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_is_enough_for_what_it_says() {
        let deeds = [Deed::Describe, Deed::Read, Deed::Infer, Deed::Manage];
        for (roles, expected) in [
            (vec![], [false, false, false, false]),
            (vec![Role::Read], [true, true, false, false]),
            (vec![Role::Infer], [true, false, true, false]),
            (vec![Role::Read, Role::Infer], [true, true, true, false]),
            (vec![Role::Manage], [true, true, true, true]),
        ] {
            let set: Roles = roles.iter().copied().collect();
            assert_eq!(deeds.map(|deed| set.allow(deed)), expected, "{roles:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("admin"), None);
    }
}
