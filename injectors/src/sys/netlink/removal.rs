//! The end of a device of ours. Blocks: it belongs on a thread of its own, which is in the namespace.
//!
//! The kernel takes a device away at once, for everybody to see, but answers whoever asked for it only when no processor
//! can hold a piece of its memory any more (`rcu_barrier` in `netdev_run_todo`): some 20 ms later. So the answer is
//! heard here, and whoever undoes a fault looks at what is there meanwhile.

use std::io;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::host::device;

/// How long the kernel may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// Room for the answer: what was asked, and a number.
const ANSWER_BYTES: usize = 4096;

/// Removes a device of this thread's namespace, and waits until the kernel has freed it.
pub(super) fn remove(index: u32) -> io::Result<()> {
    let mut request = NetlinkMessage::from(Message::DelLink(device(index)));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    for which in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, which, Some(DEADLINE))?;
    }
    rustix::io::retry_on_intr(|| rustix::net::send(&socket, &bytes, SendFlags::empty()))?;
    let mut buffer = [0; ANSWER_BYTES];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()))?;
    let answer = NetlinkMessage::<Message>::deserialize(&buffer[..length]).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
