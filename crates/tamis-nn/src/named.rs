//! Enums whose values have names: one list serves the settings file, the command line and its help, and what is printed.

/// An enum made by [`named_enum!`](crate::named_enum).
pub trait Named: Copy + Send + Sync + 'static {
    /// Every value with its name and, in a line, what it means; in the order in which they are shown.
    const NAMES: &'static [(Self, &'static str, &'static str)];
}

/// Names for the values of an enum without fields.
///
/// Gives it the list of [`Named`], `name`, `Display`, `FromStr` (`_` and `-` are the same) and serde, all by the names. The enum must be
/// `Copy`; the setting is named where a value is none of them; the error must have a `setting` like [`Error::setting`](crate::Error::setting).
///
/// ```
/// use tamis_nn::{Error, named_enum};
///
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// enum Speed {
///     Slow,
///     VeryFast,
/// }
///
/// named_enum!(Speed, "speed", Error, {
///     Slow => "slow": "as the text says",
///     VeryFast => "very-fast": "as the picture shows",
/// });
///
/// assert_eq!(Speed::VeryFast.to_string(), "very-fast");
/// assert_eq!("very_fast".parse::<Speed>().unwrap(), Speed::VeryFast);
/// let error = "fast".parse::<Speed>().unwrap_err();
/// assert_eq!(error.to_string(), "speed: expected slow or very-fast, found `fast`");
/// ```
#[macro_export]
macro_rules! named_enum {
    ($type:ty, $setting:literal, $error:ty, { $($value:ident => $name:literal: $help:literal,)+ }) => {
        impl $type {
            /// Every value with its name and, in a line, what it means.
            pub const NAMES: &'static [(Self, &'static str, &'static str)] = &[$((Self::$value, $name, $help)),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }

        impl $crate::named::Named for $type {
            const NAMES: &'static [(Self, &'static str, &'static str)] = <$type>::NAMES;
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> ::std::result::Result<Self, $error> {
                $crate::named::find(text).ok_or_else(|| {
                    <$error>::setting($setting, $crate::named::listed::<Self>(), format!("`{text}`"))
                })
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                let text = <::std::string::String as ::serde::Deserialize>::deserialize(deserializer)?;
                $crate::named::find(&text)
                    .ok_or_else(|| ::serde::de::Error::unknown_variant(&text, &[$($name),+]))
            }
        }
    };
}

/// The value of this name; `_` and `-` are the same.
pub fn find<T: Named>(text: &str) -> Option<T> {
    let dashed = |name: &str| name.replace('_', "-");
    T::NAMES
        .iter()
        .find(|(_, known, _)| dashed(known) == dashed(text))
        .map(|(value, ..)| *value)
}

/// The names, as in `a, b or c`.
pub fn listed<T: Named>() -> String {
    let names: Vec<&str> = T::NAMES.iter().map(|(_, name, _)| *name).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}
