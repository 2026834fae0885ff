//! Users, as far as others see them: address and name.

use aggregates::Recorded;
use aggregates::personal::readable;
use aggregates::user::UserEvent;

use crate::read_model::{projection_of_rows, read_model};

read_model! {
    users of User {
        email: Option<String>,
        name: Option<String>,
    }
    personal [email, name]
}

projection_of_rows!();

impl Row {
    fn apply(&mut self, recorded: &Recorded, event: &UserEvent) {
        match event {
            UserEvent::UserRegistered { email, display_name, .. } => {
                self.begin(recorded, recorded.recorded_at);
                self.email = readable(email).map(str::to_owned);
                self.name = readable(display_name).map(str::to_owned);
            }
            UserEvent::UserProfileChanged { email, display_name, .. } => {
                self.email = readable(email).map(str::to_owned);
                self.name = readable(display_name).map(str::to_owned);
            }
            UserEvent::UserErased { .. } => (self.email, self.name) = (None, None),
            // Whether a user is let in is asked of the log.
            UserEvent::UserHeld { .. }
            | UserEvent::UserApproved { .. }
            | UserEvent::UserRevoked { .. }
            | UserEvent::UserReinstated { .. } => {}
        }
    }
}
