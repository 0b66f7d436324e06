//! Must not compile: borrowed memory cannot be lent to the kernel. The compiler has to say what to give.

#[annulus::main]
async fn main() -> annulus::Result<()> {
    let stream = annulus::net::TcpStream::connect("127.0.0.1:7000").await?;
    let mut bytes = vec![0; 100];
    stream.send_all(&bytes).await?;
    stream.recv_into(&mut bytes[..]).await?;
    Ok(())
}
