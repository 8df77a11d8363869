//! Messages of gRPC calls as JSON (as the protobuf documentation maps them): what a descriptor set makes of a request's
//! body, and of its answer. The one door to prost-reflect. Pure.

use std::sync::Arc;

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::connecting::Protoset;

/// In front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// The most names that a mistake lists.
const NAMES_MAX: usize = 8;

/// The services of a descriptor set.
#[derive(Debug)]
pub(super) struct Services(DescriptorPool);

/// One unary call: what its request and its answer are.
#[derive(Debug, Clone)]
pub(super) struct Call(Arc<(MessageDescriptor, MessageDescriptor)>);

impl Services {
    /// Reads a descriptor set.
    ///
    /// # Errors
    /// It is none, or lacks a file that another imports.
    pub(super) fn read(protoset: &Protoset) -> Result<Self, String> {
        let wrong = |error| {
            format!(
                "this is no whole descriptor set: {error}; write one with `protoc --include_imports --descriptor_set_out=FILE`"
            )
        };
        DescriptorPool::decode(protoset.0.as_slice()).map(Self).map_err(wrong)
    }

    /// The call with this path: `/package.Service/Method`.
    ///
    /// # Errors
    /// There is none, or it is not unary.
    pub(super) fn call(&self, path: &str) -> Result<Call, String> {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let Some(found) = self.0.get_service_by_name(service) else {
            let there = listed(self.0.services().map(|service| service.full_name().to_owned()));
            return Err(format!("the descriptor set has no service `{service}`: {there}"));
        };
        let Some(call) = found.methods().find(|call| call.name() == method) else {
            let there = listed(found.methods().map(|call| call.name().to_owned()));
            return Err(format!("service {service} has no method `{method}`: {there}"));
        };
        if call.is_client_streaming() || call.is_server_streaming() {
            return Err(format!("{service}/{method} is a stream: only unary calls can be made"));
        }
        Ok(Call(Arc::new((call.input(), call.output()))))
    }
}

/// What there is, within a bound.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    match (names.is_empty(), more) {
        (true, _) => "it has none".to_owned(),
        (false, 0) => format!("it has {}", names.join(", ")),
        (false, more) => format!("it has {} and {more} more", names.join(", ")),
    }
}

impl Call {
    /// Writes the message that this JSON is; nothing is the empty message.
    ///
    /// # Errors
    /// It is no such message.
    pub(super) fn encode(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let json = if json.trim_ascii().is_empty() { b"{}" } else { json };
        let mut text = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize(self.0.0.clone(), &mut text);
        let message = message.and_then(|message| text.end().map(|()| message));
        let wrong = |error| format!("the body is no {} in JSON: {error}", self.0.0.full_name());
        message.map_err(wrong)?.encode(out).map_err(|error| error.to_string())
    }

    /// The answer as JSON, with its defaults, and 64-bit numbers as numbers; none if it is no such message.
    pub(super) fn decode(&self, body: &[u8]) -> Option<Value> {
        let (prefix, message) = body.split_at_checked(PREFIX)?;
        let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
        // Nobody was asked to compress.
        let plain = prefix[0] == 0 && length == message.len();
        let message = plain.then(|| DynamicMessage::decode(self.0.1.clone(), message).ok())??;
        let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(false);
        message.serialize_with_options(serde_json::value::Serializer, &options).ok()
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
    use prost_reflect::prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
        ServiceDescriptorProto,
    };
    use serde_json::json;

    use super::*;

    fn field(name: &str, number: i32, kind: Type, label: Label) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            r#type: Some(kind.into()),
            label: Some(label.into()),
            ..Default::default()
        }
    }

    fn protoset() -> Protoset {
        let method = |name: &str, stream: bool| MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(".pets.Pet".to_owned()),
            output_type: Some(".pets.Pet".to_owned()),
            server_streaming: Some(stream),
            ..Default::default()
        };
        let pet = DescriptorProto {
            name: Some("Pet".to_owned()),
            field: vec![
                field("name", 1, Type::String, Label::Optional),
                field("born", 2, Type::Int64, Label::Optional),
                field("tags", 3, Type::String, Label::Repeated),
            ],
            ..Default::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("Pets".to_owned()),
            method: vec![method("Get", false), method("Watch", true)],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("pets.proto".to_owned()),
            package: Some("pets".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![pet],
            service: vec![service],
            ..Default::default()
        };
        Protoset(FileDescriptorSet { file: vec![file] }.encode_to_vec())
    }

    #[test]
    fn a_message_is_written_and_read_as_json() {
        let call = Services::read(&protoset()).unwrap().call("/pets.Pets/Get").unwrap();
        let mut message = vec![0; PREFIX];
        call.encode(br#"{"name": "Rex", "born": "7", "tags": ["a"]}"#, &mut message).unwrap();
        assert_eq!(&message[PREFIX..], b"\x0a\x03Rex\x10\x07\x1a\x01a");
        message[4] = (message.len() - PREFIX) as u8;
        assert_eq!(call.decode(&message), Some(json!({"name": "Rex", "born": 7, "tags": ["a"]})));
        assert_eq!(call.decode(&[0; PREFIX]), Some(json!({"name": "", "born": 0, "tags": []})), "defaults");
        for broken in [&message[..8], &message[..3], b"", b"\0\0\0\0\x01\xff", b"\x01\0\0\0\0"] {
            assert_eq!(call.decode(broken), None, "{broken:?}");
        }
        let mut nothing = Vec::new();
        call.encode(b" ", &mut nothing).unwrap();
        assert!(nothing.is_empty());
        for (json, why) in [
            (r#"{"nam": "Rex"}"#, "unrecognized field name 'nam'"),
            (r#"{"born": "x"}"#, "pets.Pet"),
            (r#"{"born": 1} {}"#, "trailing"),
            ("[]", "expected a map"),
        ] {
            let said = call.encode(json.as_bytes(), &mut nothing).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_told_with_what_can() {
        let services = Services::read(&protoset()).unwrap();
        let said = |path: &str| services.call(path).unwrap_err();
        assert!(said("/pets.Cats/Get").contains("no service `pets.Cats`: it has pets.Pets"));
        assert!(said("/pets.Pets/Put").contains("no method `Put`: it has Get, Watch"));
        assert!(said("/pets.Pets/Watch").contains("is a stream"));
        let wrong = Services::read(&Protoset(b"syntax = \"proto3\";".to_vec())).unwrap_err();
        assert!(wrong.contains("protoc --include_imports"), "{wrong}");
        let none = Services::read(&Protoset(Vec::new())).unwrap().call("/a.B/C").unwrap_err();
        assert!(none.ends_with("it has none"), "{none}");
    }
}
