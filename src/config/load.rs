//! The whole way: text, environment and flags → a plan, or every problem.

use toml::de::{DeTable, DeValue};

use super::check;
use super::file::File;
use super::overrides::{self, Overrides};
use super::problem::{Place, Problem, Problems, Spot};
use super::read::{Node, Reader};
use super::setting::Setting;
use super::variable::Env;
use crate::plan::Plan;

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name as it is shown in messages.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// Makes a plan of a configuration file, the environment and the flags. Opens nothing but the files that it names.
///
/// # Errors
/// Every mistake at once; of mistakes of TOML syntax the first alone, since what follows one cannot be told apart.
pub fn load(source: &Source, env: &dyn Env, flags: &Overrides) -> Result<Plan, Problems> {
    let problems = |list| Problems::new(&source.name, &source.text, list);
    let table = DeTable::parse(&source.text).map_err(|error| problems(vec![syntax(&error)]))?;
    let mut reader = Reader::new(env);
    let value = DeValue::Table(table.into_inner());
    let plan = File::read(&Node::root(&value), &mut reader).and_then(|mut file| {
        overrides::apply(&mut file, env, flags, &mut reader);
        check::plan(&file, &mut reader)
    });
    match plan {
        Some(plan) if reader.is_clean() => Ok(plan),
        _ => Err(problems(reader.into_problems())),
    }
}

fn syntax(error: &toml::de::Error) -> Problem {
    let place = error.span().map_or(Place::Whole, Place::File);
    Problem::at(&Spot { path: String::new(), place }, error.message().trim().replace('\n', "; "))
}
