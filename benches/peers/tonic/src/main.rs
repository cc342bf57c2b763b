//! The tonic echo server that bascule is measured against and with, on one thread.
//!
//! It prints "ready ADDRESS" once it listens and stops when its standard input ends, so that it
//! never outlives the harness that started it.

use proto::echo_server::{Echo, EchoServer};
use proto::{Chunk, Message, Total};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

mod proto {
    tonic::include_proto!("bench");
}

struct Service;

#[tonic::async_trait]
impl Echo for Service {
    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let Message { id, name, active } = request.into_inner();
        Ok(Response::new(Message { id, name, active }))
    }

    async fn upload(&self, _: Request<Streaming<Chunk>>) -> Result<Response<Total>, Status> {
        Err(Status::unimplemented("this peer answers Unary only"))
    }

    type DownloadStream = tokio_stream::Empty<Result<Chunk, Status>>;

    async fn download(&self, _: Request<Total>) -> Result<Response<Self::DownloadStream>, Status> {
        Err(Status::unimplemented("this peer answers Unary only"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?);
    Server::builder()
        .add_service(EchoServer::new(Service))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            end_of_input(),
        )
        .await?;
    Ok(())
}

async fn end_of_input() {
    let mut ignored = Vec::new();
    // However it ends, nobody holds the other side any more.
    let _ = tokio::io::stdin().read_to_end(&mut ignored).await;
}
