//! Roles on the wire; the stored ones carry no API derives.

use poem_openapi::Enum;

/// What somebody may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Auditor,
    Operator,
    Admin,
}

impl From<keywright_entities::types::Role> for Role {
    fn from(role: keywright_entities::types::Role) -> Self {
        use keywright_entities::types::Role as Stored;
        match role {
            Stored::Viewer => Self::Viewer,
            Stored::Auditor => Self::Auditor,
            Stored::Operator => Self::Operator,
            Stored::Admin => Self::Admin,
        }
    }
}

impl From<Role> for keywright_entities::types::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Auditor => Self::Auditor,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}
