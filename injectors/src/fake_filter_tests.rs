//! Packet filters of the fake world: tables with sets, chains and rules, all or nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sys::nft::read::{Counted, Picked, Table};
use crate::sys::nft::{Edit, Expression};

/// Tables, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters {
    tables: BTreeMap<String, Own>,
    born: u64,
    packets: u64,
}

#[derive(Debug, Clone, Default)]
struct Own {
    handle: u64,
    comment: String,
    elements: BTreeMap<&'static str, Vec<u8>>,
    chains: BTreeMap<String, Vec<Vec<Expression>>>,
    /// The numbers of the rules that were ever added to a chain, in their order.
    numbers: BTreeMap<String, Vec<u64>>,
    born: u64,
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(2)
}

impl Filters {
    /// All that can be seen of it; what was counted is no part of the ruleset.
    pub(crate) fn look(&self) -> Value {
        let tables: Vec<String> = self
            .tables
            .iter()
            .map(|(name, own)| format!("{name} {} {:?}", own.comment, own.chains))
            .collect();
        json!(tables)
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let table = |(name, own): (&String, &Own)| Table {
            name: name.clone(),
            handle: own.handle,
            comment: own.comment.clone(),
        };
        self.tables.iter().map(table).collect()
    }

    pub(crate) fn counted(&self, table: &str) -> Vec<Counted> {
        let chains = self.tables.get(table).map(|own| own.chains.clone()).unwrap_or_default();
        let counting = chains.into_iter().flat_map(|(chain, rules)| {
            let counts = rules.into_iter().filter(|rule| rule.contains(&Expression::Count));
            counts.map(move |_| chain.clone())
        });
        counting.map(|chain| Counted { chain, packets: self.packets, bytes: 60 * self.packets }).collect()
    }

    /// Rules that ask for a single address and go on elsewhere.
    pub(crate) fn picked(&self, table: &str) -> Vec<Picked> {
        let Some(own) = self.tables.get(table) else { return Vec::new() };
        let each = own.chains.iter().flat_map(|(chain, rules)| {
            let numbered = rules.iter().zip(&own.numbers[chain]);
            numbered.filter_map(move |(rule, handle)| {
                let address = rule.iter().find_map(|one| match one {
                    Expression::Compare(_, value) if value.len() == 4 || value.len() == 16 => Some(value),
                    _ => None,
                })?;
                let four = <[u8; 4]>::try_from(&address[..]).map(IpAddr::from);
                let six = || <[u8; 16]>::try_from(&address[..]).map(IpAddr::from);
                Some(Picked { chain: chain.clone(), handle: *handle, address: four.or_else(|_| six()).ok()? })
            })
        });
        each.collect()
    }

    /// How long one packet takes to be answered; it meets any table that has a lease.
    pub(crate) fn reach(&mut self) -> Option<Duration> {
        if self.tables.values().any(|own| own.elements.values().any(|set| !set.is_empty())) {
            self.packets += 1;
            return None;
        }
        Some(Duration::from_micros(150))
    }

    pub(crate) fn commit(&mut self, edits: &[Edit]) -> io::Result<()> {
        let mut after = self.clone();
        edits.iter().try_for_each(|edit| after.make(edit))?;
        *self = after;
        Ok(())
    }

    fn table(&mut self, name: &str) -> io::Result<&mut Own> {
        self.tables.get_mut(name).ok_or_else(missing)
    }

    fn make(&mut self, edit: &Edit) -> io::Result<()> {
        match edit {
            Edit::AddTable { table, comment } => {
                self.born += 1;
                let own = Own { handle: self.born, comment: comment.clone(), ..Own::default() };
                if self.tables.insert(table.clone(), own).is_some() {
                    return Err(io::Error::from_raw_os_error(17));
                }
            }
            Edit::DropTable { handle } => {
                let count = self.tables.len();
                self.tables.retain(|_, own| own.handle != *handle);
                if self.tables.len() == count {
                    return Err(missing());
                }
            }
            Edit::AddSet { table, set, .. } => {
                self.table(table)?.elements.insert(set, Vec::new());
            }
            Edit::AddElements { table, set, families } => {
                self.table(table)?.elements.get_mut(set).ok_or_else(missing)?.extend(families);
            }
            Edit::DropElements { table, set, families } => {
                let elements = self.table(table)?.elements.get_mut(set).ok_or_else(missing)?;
                for family in families {
                    let at = elements.iter().position(|known| known == family).ok_or_else(missing)?;
                    elements.remove(at);
                }
            }
            Edit::AddChain { table, chain, .. } => {
                let own = self.table(table)?;
                own.chains.insert(chain.clone(), Vec::new());
                own.numbers.insert(chain.clone(), Vec::new());
            }
            Edit::AddRule { table, chain, rule } => {
                let chains = &mut self.table(table)?.chains;
                for led in rule {
                    use crate::sys::nft::Verdict::{Goto, Jump};
                    if let Expression::Decide(Goto(other) | Jump(other)) = led
                        && !chains.contains_key(other)
                    {
                        return Err(missing());
                    }
                }
                chains.get_mut(chain).ok_or_else(missing)?.push(rule.clone());
                let own = self.table(table)?;
                own.born += 1;
                own.numbers.get_mut(chain).ok_or_else(missing)?.push(own.born);
            }
            Edit::DropRule { table, chain, handle } => {
                let own = self.table(table)?;
                let numbers = own.numbers.get_mut(chain).ok_or_else(missing)?;
                let at = numbers.iter().position(|number| number == handle).ok_or_else(missing)?;
                numbers.remove(at);
                own.chains.get_mut(chain).ok_or_else(missing)?.remove(at);
            }
        }
        Ok(())
    }
}
