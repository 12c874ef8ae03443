//! The server with its models, the empty handler, and the clients that ask them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cell::{Batching, By, Cell, Row};
use super::direct::Engine;
use super::floor::Floor;
use super::loops::{Loops, agree};
use super::options::Options;
use super::request::Protocol;
use super::request::{self, Client};
use super::served::Served;
use super::zoo::Model;

/// How much longer than the tiny model's a measurement of the others takes.
const LONGER: u32 = 3;

/// All that is measured.
pub(crate) struct Stage {
    /// What is asked in each round, in its order.
    pub(crate) clients: BTreeMap<Row, Client>,
    pub(crate) loops: BTreeMap<Model, Loops>,
    pub(crate) version: String,
    pub(crate) processes: Processes,
    repository: tempfile::TempDir,
    onward: Served,
    _floor: Floor,
}

/// Who answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processes {
    server: u32,
    handler: u32,
}

impl Processes {
    pub(crate) fn of(self, row: Row) -> u32 {
        match row {
            Row::Direct(..) => std::process::id(),
            Row::Handler(..) => self.handler,
            Row::Server(_) => self.server,
        }
    }
}

impl Stage {
    /// Sets all up, and sees to it that each answer is right.
    pub(crate) async fn set_up(options: &Options) -> Result<Self> {
        let repository = repository(options)?;
        let engine = Engine::start()?;
        let onward = Served::start_with_grpc(repository.path())?;
        let floor = Floor::start()?;
        let mut stage = Self {
            clients: handlers(&floor, options),
            loops: BTreeMap::new(),
            version: engine.version(),
            processes: Processes { server: onward.process(), handler: floor.process() },
            repository,
            onward,
            _floor: floor,
        };
        for &model in &options.models {
            let graph = stage.graph(model);
            let loops = Loops::open(&engine, (model, &graph), duration(model, options) / 2)?;
            stage.loops.insert(model, loops);
        }
        stage.add_cells(options).await?;
        Ok(stage)
    }

    fn graph(&self, model: Model) -> PathBuf {
        self.repository.path().join(folder(model, Batching::Default)).join("1/model.onnx")
    }

    async fn add_cells(&mut self, options: &Options) -> Result<()> {
        for &model in &options.models {
            for &batching in &options.batching {
                for &protocol in &options.protocols {
                    let client = self.client(model, batching, protocol)?;
                    let loops = self.loops.get_mut(&model).context("it was opened")?;
                    check(&client, protocol, loops).await.with_context(|| model.name())?;
                    self.clients.extend(options.connections.iter().map(|&connections| {
                        let cell = Cell { model, connections, batching, protocol };
                        (Row::Server(cell), client.clone())
                    }));
                }
            }
        }
        Ok(())
    }

    fn client(&self, model: Model, batching: Batching, protocol: Protocol) -> Result<Client> {
        let (name, inputs) = (folder(model, batching), model.inputs(0, 1));
        if protocol == Protocol::Grpc {
            let address = self.onward.grpc_address().context("the server speaks gRPC")?;
            return Ok(Client::Grpc(request::grpc(address, &name, &inputs)?));
        }
        let path = format!("/v2/models/{name}/infer");
        Ok(Client::Http(request::http(protocol, (self.onward.address(), &path), &inputs)))
    }
}

/// How long one measurement takes.
pub(crate) fn duration(model: Model, options: &Options) -> Duration {
    if model == Model::Mlp { options.duration } else { options.duration * LONGER }
}

/// The model's name at the server.
fn folder(model: Model, batching: Batching) -> String {
    match batching {
        Batching::Default => model.name().to_owned(),
        Batching::Off => format!("{}-apart", model.name()),
    }
}

/// Each model once for each of the settings.
fn repository(options: &Options) -> Result<tempfile::TempDir> {
    let repository = tempfile::TempDir::new()?;
    for &model in &options.models {
        let graph = model.graph();
        // The loop takes the file of the default.
        for batching in Batching::ALL
            .into_iter()
            .filter(|one| *one == Batching::Default || options.batching.contains(one))
        {
            let folder = repository.path().join(folder(model, batching));
            fs::create_dir_all(folder.join("1"))?;
            fs::write(folder.join("1/model.onnx"), &graph)?;
            if let Some(settings) = batching.settings() {
                fs::write(folder.join("model.yaml"), settings)?;
            }
        }
    }
    Ok(repository)
}

/// The empty handler takes the tiny model's requests.
fn handlers(floor: &Floor, options: &Options) -> BTreeMap<Row, Client> {
    let inputs = Model::Mlp.inputs(0, 1);
    let of = |(by, address): (By, SocketAddr)| {
        [(Protocol::Json, "/"), (Protocol::Binary, "/binary")].map(|(protocol, path)| {
            let client = Client::Http(request::http(protocol, (address, path), &inputs));
            (by, protocol, client)
        })
    };
    let servers = [(By::Us, Some(floor.address())), (By::Axum, floor.address_of_axum())];
    let servers = servers.into_iter().filter_map(|(by, address)| Some((by, address?)));
    let rows = |(by, protocol, client): (By, Protocol, Client)| {
        let connections = options.connections.iter();
        connections
            .map(move |connections| (Row::Handler(by, protocol, *connections), client.clone()))
    };
    let is_wanted = options.models.contains(&Model::Mlp);
    servers.filter(|_| is_wanted).flat_map(of).flat_map(rows).collect()
}

/// The server must compute what the loop computes, or there is nothing to compare.
async fn check(client: &Client, protocol: Protocol, loops: &mut Loops) -> Result<()> {
    let expected = loops.answer()?;
    let given = request::answer(client, protocol, expected.len()).await?;
    agree(&given, &expected).with_context(|| format!("over {}", protocol.name()))
}
