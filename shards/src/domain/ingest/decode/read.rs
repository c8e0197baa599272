//! Members of a payload: where they lie, and what they hold by the rules of contract `ingest.md` 2.0. Pure.
//! Invariant: what is read here keeps the rule of the same name in the schemas (`$defs`).

use crate::domain::ingest::event::{Event, Text};
use crate::domain::ingest::refusal::Reason;
use crate::domain::ingest::{Body, body};
use crate::domain::json::{self, Cursor, Field, Kind, Place, Whole, unescape, whole};
use std::borrow::Cow;

/// Reads a payload of one kind and version.
pub(crate) type Decoder = for<'a> fn(Source<'a>) -> Result<Event<'a>, Fault>;

/// Why a payload is no event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It is no JSON, or no object.
    Json(json::Fault),
    /// A member breaks a rule.
    Wrong(Wrong),
}

/// A broken rule, and where. Its wording is the schema's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wrong {
    pub(crate) reason: Reason,
    /// Pointer to the list and index of the item it is in.
    pub(crate) item: Option<(&'static str, u32)>,
    /// Pointer to the member from the event or item.
    pub(crate) member: &'static str,
}

impl Wrong {
    pub(crate) fn new(reason: Reason, member: &'static str) -> Self {
        Self { reason, item: None, member }
    }

    /// JSON pointer from the top of the payload.
    pub(crate) fn path(self) -> String {
        match self.item {
            Some((list, index)) => format!("{list}/{index}{}", self.member),
            None => self.member.to_owned(),
        }
    }
}

impl From<json::Fault> for Fault {
    fn from(fault: json::Fault) -> Self {
        Self::Json(fault)
    }
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Members that an object may have, and where they lie.
pub(crate) trait Slots: Default {
    /// Where the member of this name belongs; none if nobody asks for it.
    fn slot(&mut self, name: &[u8]) -> Option<&mut Field>;

    /// Passes the object at the cursor and notes its members.
    fn collect(&mut self, cursor: &mut Cursor<'_>) -> Result<(), json::Fault> {
        cursor.each_name(|cursor, name| self.take(cursor, name))
    }

    /// Passes the value of a member, and notes it if somebody asks for it.
    fn take(&mut self, cursor: &mut Cursor<'_>, name: &[u8]) -> Result<(), json::Fault> {
        match self.slot(name) {
            Some(slot) => *slot = cursor.value()?,
            None => cursor.skip()?,
        }
        Ok(())
    }
}

/// Passes a member that should be an object of known members, and notes both it and them.
pub(crate) fn collect_inner<S: Slots>(
    cursor: &mut Cursor<'_>,
    whole: &mut Field,
    members: &mut S,
) -> Result<(), json::Fault> {
    if cursor.peek()? == b'{' {
        let start = cursor.offset();
        *members = S::default();
        members.collect(cursor)?;
        *whole = Field { kind: Kind::Object, span: cursor.span_from(start) };
    } else {
        *whole = cursor.value()?;
    }
    Ok(())
}

/// A struct of slots, each with the name of its member.
macro_rules! slots {
    ($name:ident { $($slot:ident: $member:literal),* $(,)? }) => {
        #[derive(Clone, Copy, Default)]
        pub(super) struct $name { $(pub(super) $slot: crate::domain::json::Field),* }

        impl crate::domain::ingest::decode::read::Slots for $name {
            #[inline]
            fn slot(&mut self, name: &[u8]) -> Option<&mut crate::domain::json::Field> {
                match name {
                    $($member => Some(&mut self.$slot),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use slots;

/// A body whose members are read, and the company it must belong to.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    text: &'a str,
    has_nul: bool,
    company: &'a str,
}

impl<'a> Source<'a> {
    pub(crate) fn new(body: &'a Body<'_>, company: &'a str) -> Self {
        Self { text: body.as_str(), has_nul: body.has_nul(), company }
    }

    /// Whether an escaped U+0000 stands anywhere in the body.
    pub(crate) fn has_nul(self) -> bool {
        self.has_nul
    }

    /// Notes the members of a body that is one object.
    pub(crate) fn members<S: Slots>(self) -> Result<S, json::Fault> {
        let (mut cursor, mut members) = (self.cursor(), S::default());
        members.collect(&mut cursor)?;
        cursor.finish()?;
        Ok(members)
    }

    /// A cursor at the start of the body.
    pub(crate) fn cursor(self) -> Cursor<'a> {
        Cursor::new(self.text.as_bytes(), Place::Body)
    }

    /// A string, or nothing.
    #[inline]
    pub(crate) fn text(self, field: Field, at: &'static str) -> Result<Option<Text<'a>>, Wrong> {
        match field.kind {
            Kind::Text => Ok(Some(Cow::Borrowed(self.raw(field)))),
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Escaped => self.unescaped(field, at).map(Some),
            Kind::Bool | Kind::Number | Kind::Array | Kind::Object => {
                Err(Wrong::new(Reason::WrongType, at))
            }
        }
    }

    /// A string that may be empty, but not absent.
    pub(crate) fn given(self, field: Field, at: &'static str) -> Result<Text<'a>, Wrong> {
        self.text(field, at)?.ok_or(Wrong::new(Reason::Missing, at))
    }

    /// A string that is neither absent nor empty.
    #[inline]
    pub(crate) fn required(self, field: Field, at: &'static str) -> Result<Text<'a>, Wrong> {
        match self.text(field, at)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(Wrong::new(Reason::Empty, at)),
            None => Err(Wrong::new(Reason::Missing, at)),
        }
    }

    /// A whole number of 64 bits, in any notation, or nothing.
    pub(crate) fn integer(self, field: Field, at: &'static str) -> Result<Option<i64>, Wrong> {
        match field.kind {
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Number => match whole(self.raw(field).as_bytes()) {
                Whole::Not => Err(Wrong::new(Reason::WrongType, at)),
                Whole::Beyond => Err(Wrong::new(Reason::OutOfRange, at)),
                Whole::Is(value) => {
                    i64::try_from(value).map(Some).map_err(|_| Wrong::new(Reason::OutOfRange, at))
                }
            },
            _ => Err(Wrong::new(Reason::WrongType, at)),
        }
    }

    /// A whole number of 64 bits that is not negative, or nothing.
    pub(crate) fn natural(self, field: Field, at: &'static str) -> Result<Option<i64>, Wrong> {
        match self.integer(field, at)? {
            Some(..0) => Err(Wrong::new(Reason::OutOfRange, at)),
            value => Ok(value),
        }
    }

    /// A whole number of 32 bits, or nothing.
    pub(crate) fn integer32(self, field: Field, at: &'static str) -> Result<Option<i32>, Wrong> {
        self.integer(field, at)?
            .map(|value| i32::try_from(value).map_err(|_| Wrong::new(Reason::OutOfRange, at)))
            .transpose()
    }

    /// A truth value, or nothing.
    pub(crate) fn flag(self, field: Field, at: &'static str) -> Result<Option<bool>, Wrong> {
        match field.kind {
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Bool => Ok(Some(self.raw(field) == "true")),
            _ => Err(Wrong::new(Reason::WrongType, at)),
        }
    }

    /// A free object as it came, or nothing. It goes into `jsonb`, so it holds no U+0000 either.
    pub(crate) fn object(self, field: Field, at: &'static str) -> Result<Option<&'a str>, Wrong> {
        match field.kind {
            Kind::Absent | Kind::Null => Ok(None),
            Kind::Object => {
                let raw = self.raw(field);
                if self.has_nul && body::has_nul(raw) {
                    return Err(Wrong::new(Reason::Nul, at));
                }
                Ok(Some(raw))
            }
            _ => Err(Wrong::new(Reason::WrongType, at)),
        }
    }

    /// Whether there is an object, whose members are read one by one.
    pub(crate) fn is_object(self, field: Field, at: &'static str) -> Result<bool, Wrong> {
        match field.kind {
            Kind::Absent | Kind::Null => Ok(false),
            Kind::Object => Ok(true),
            _ => Err(Wrong::new(Reason::WrongType, at)),
        }
    }

    /// Any value as it came, or nothing.
    pub(crate) fn any(self, field: Field) -> Option<&'a str> {
        let quotes = usize::from(field.is_string());
        let start = field.span.offset() - quotes.min(field.span.offset());
        let end = field.span.offset() + field.span.len() + quotes;
        field.is_some().then(|| self.text.get(start..end)).flatten()
    }

    /// The company of a payload: absent, empty, or the subject's.
    pub(crate) fn company(self, field: Field, at: &'static str) -> Result<(), Wrong> {
        match self.text(field, at)? {
            Some(company) if !company.is_empty() && company != self.company => {
                Err(Wrong::new(Reason::CompanyMismatch, at))
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn raw(self, field: Field) -> &'a str {
        let start = field.span.offset();
        self.text.get(start..start + field.span.len()).unwrap_or_default()
    }

    #[cold]
    fn unescaped(self, field: Field, at: &'static str) -> Result<Text<'a>, Wrong> {
        let text = unescape(self.raw(field).as_bytes());
        match text {
            Some(text) if !(self.has_nul && text.contains('\0')) => Ok(Cow::Owned(text)),
            Some(_) => Err(Wrong::new(Reason::Nul, at)),
            // A body has no half pairs left, and the cursor has passed every escape.
            None => Err(Wrong::new(Reason::BadValue, at)),
        }
    }
}
