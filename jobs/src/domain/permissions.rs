//! Who may do what: the one table of permissions and the roles that have them.

use keywright_entities::types::Role;

/// Defines the permissions, their names, the roles that have them, and for each a marker type for handlers' signatures.
macro_rules! permissions {
    ($($(#[$meta:meta])* $variant:ident = $text:literal: [$($role:ident),+]);+ $(;)?) => {
        /// A right to do one kind of thing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Permission { $($(#[$meta])* $variant),+ }

        impl Permission {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that clients see as `requiredPermission`. Never changes.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The roles that have it.
            pub const fn roles(self) -> &'static [Role] {
                match self { $(Self::$variant => &[$(Role::$role),+]),+ }
            }
        }

        /// One type per permission, for `Caller<perm::…>`.
        pub mod perm {
            use super::{Permission, Required};
            $(
                $(#[$meta])*
                #[derive(Clone, Copy, Debug)]
                pub struct $variant;

                impl Required for $variant {
                    const PERMISSION: Permission = Permission::$variant;
                }
            )+
        }
    };
}

permissions! {
    /// Use one's own account: who am I, password, sessions, API tokens.
    AccountSelf = "account:self": [Viewer, Auditor, Operator, Admin];
    /// Read subscriptions, scans, assets and vaults.
    InventoryRead = "inventory:read": [Viewer, Auditor, Operator, Admin];
    /// Read jobs and queues.
    JobsRead = "jobs:read": [Viewer, Auditor, Operator, Admin];
    /// Start scans and other jobs.
    JobsStart = "jobs:start": [Operator, Admin];
    /// Cancel, pause, resume and retry what others started.
    JobsControl = "jobs:control": [Operator, Admin];
    /// Add, change and remove subscriptions.
    SubscriptionsWrite = "subscriptions:write": [Admin];
    /// Read schedules.
    SchedulesRead = "schedules:read": [Viewer, Auditor, Operator, Admin];
    /// Add, change and remove schedules.
    SchedulesWrite = "schedules:write": [Operator, Admin];
    /// Read what the system is and how it is set.
    SystemRead = "system:read": [Viewer, Auditor, Operator, Admin];
    /// Read the audit log, export and verify it.
    AuditRead = "audit:read": [Auditor, Admin];
    /// Read evidence packages.
    EvidenceRead = "evidence:read": [Auditor, Admin];
    /// Have evidence packages built.
    EvidenceBuild = "evidence:build": [Auditor, Admin];
    /// Manage users, and everybody's sessions and tokens.
    UsersManage = "users:manage": [Admin];
    /// Read rotation policies, plans and rotations.
    RotationRead = "rotation:read": [Viewer, Auditor, Operator, Admin];
    /// Plan and begin rotations, roll them back, decide what becomes of those that stand still.
    RotationRun = "rotation:run": [Operator, Admin];
    /// Add, change and remove rotation policies.
    RotationPoliciesWrite = "rotation_policies:write": [Operator, Admin];
    /// Read what waits for approval, and what became of it.
    ApprovalsRead = "approvals:read": [Viewer, Auditor, Operator, Admin];
    /// Approve and deny what somebody else asked for.
    ApprovalsDecide = "approvals:decide": [Operator, Admin];
    /// Change settings.
    SettingsWrite = "settings:write": [Admin];
}

/// What a `Caller` must be allowed to do.
pub trait Required: Send + Sync + 'static {
    const PERMISSION: Permission;
}

impl Permission {
    /// The permission of this exact name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
    }

    pub fn is_of(self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

/// The first permission that `wanted` has and a holder of all `roles` has not; none = `wanted` adds nothing.
pub fn excess(wanted: Role, roles: &[Role]) -> Option<Permission> {
    let held = |permission: Permission| roles.iter().all(|role| permission.is_of(*role));
    Permission::ALL.iter().copied().find(|permission| permission.is_of(wanted) && !held(*permission))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_may_do_everything_and_everybody_what_a_viewer_may() {
        for permission in Permission::ALL {
            assert!(permission.is_of(Role::Admin), "{permission:?}");
            if permission.is_of(Role::Viewer) {
                assert_eq!(permission.roles(), Role::ALL, "{permission:?}");
            }
        }
    }

    #[test]
    fn no_role_can_hand_out_more_than_it_has() {
        let refused = [
            (Role::Auditor, Role::Operator, Permission::AuditRead),
            (Role::Operator, Role::Auditor, Permission::JobsStart),
            (Role::Operator, Role::Viewer, Permission::JobsStart),
            (Role::Admin, Role::Operator, Permission::SubscriptionsWrite),
        ];
        for (wanted, own, missing) in refused {
            assert_eq!(excess(wanted, &[own]), Some(missing), "{own} hands out {wanted}");
        }
        for role in Role::ALL {
            assert_eq!(excess(*role, &[Role::Admin]), None);
            assert_eq!(excess(*role, &[*role]), None);
            assert_eq!(excess(Role::Viewer, &[*role]), None);
        }
        // a token's rights end where either its own role or its owner's ends
        assert_eq!(excess(Role::Operator, &[Role::Admin, Role::Viewer]), Some(Permission::JobsStart));
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> =
            Permission::ALL.iter().map(|permission| permission.as_str()).collect();
        assert_eq!(names.len(), Permission::ALL.len());
    }
}
