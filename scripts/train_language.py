#!/usr/bin/env python3
"""Trains the sample model `language`, which takes strings, and writes it, its samples and its golden samples
into models/language.

It tells the language of a sentence by its characters: how often single ones, pairs and triples occur
weighs for one language or another. The sentences below were written for this script.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

MODEL = Path(__file__).resolve().parent.parent / "models" / "language"
SEED = 0
GRAMS = 600
SENTENCES = {
    "de": """Der Zug kommt heute zehn Minuten später an|Wir haben gestern lange auf den Bus gewartet|Kannst du mir bitte
das Salz geben|Die Kinder spielen nach der Schule im Garten|Ich habe meinen Schlüssel zu Hause vergessen|Das Wetter wird
morgen wieder besser|Sie liest jeden Abend ein Buch vor dem Schlafen|Am Wochenende fahren wir zu meinen Großeltern|Der
Bäcker öffnet schon um sechs Uhr|Mein Bruder lernt seit zwei Jahren Klavier|Das Fenster ist offen und es zieht|Wo finde
ich den nächsten Geldautomaten|Die Rechnung ist noch nicht bezahlt|Er arbeitet in einem kleinen Büro am Fluss|Im Winter
wird es hier sehr früh dunkel|Die Straße ist wegen einer Baustelle gesperrt|Wie viel kostet eine Karte für das Konzert|Ich
trinke meinen Kaffee ohne Zucker|Der Hund schläft unter dem Tisch|Nächste Woche schreiben wir eine Prüfung""",
    "en": """The train is ten minutes late today|We waited a long time for the bus yesterday|Could you pass me the salt
please|The children play in the garden after school|I have left my key at home|The weather will be better again
tomorrow|She reads a book every evening before going to sleep|We are visiting my grandparents at the weekend|The baker
opens as early as six o'clock|My brother has been learning the piano for two years|The window is open and there is a
draught|Where can I find the nearest cash machine|The bill has not been paid yet|He works in a small office by the
river|It gets dark very early here in winter|The road is closed because of building work|How much is a ticket for the
concert|I drink my coffee without sugar|The dog is sleeping under the table|We are writing a test next week""",
    "es": """El tren llega hoy con diez minutos de retraso|Ayer esperamos mucho tiempo el autobús|Me puedes pasar la sal por
favor|Los niños juegan en el jardín después de la escuela|He olvidado mi llave en casa|Mañana hará otra vez mejor
tiempo|Ella lee un libro cada noche antes de dormir|El fin de semana visitamos a mis abuelos|La panadería abre ya a las
seis|Mi hermano aprende piano desde hace dos años|La ventana está abierta y hay corriente|Dónde encuentro el cajero más
cercano|La factura todavía no está pagada|Trabaja en una oficina pequeña junto al río|En invierno anochece aquí muy
temprano|La calle está cerrada por obras|Cuánto cuesta una entrada para el concierto|Tomo mi café sin azúcar|El perro
duerme debajo de la mesa|La próxima semana tenemos un examen""",
    "fr": """Le train a dix minutes de retard aujourd'hui|Nous avons attendu le bus longtemps hier|Peux-tu me passer le sel
s'il te plaît|Les enfants jouent dans le jardin après l'école|J'ai oublié ma clé à la maison|Demain il fera de nouveau
meilleur|Elle lit un livre chaque soir avant de dormir|Ce week-end nous allons chez mes grands-parents|La boulangerie
ouvre déjà à six heures|Mon frère apprend le piano depuis deux ans|La fenêtre est ouverte et il y a un courant d'air|Où
se trouve le distributeur le plus proche|La facture n'est pas encore payée|Il travaille dans un petit bureau au bord du
fleuve|En hiver il fait nuit très tôt ici|La rue est fermée à cause de travaux|Combien coûte un billet pour le
concert|Je bois mon café sans sucre|Le chien dort sous la table|La semaine prochaine nous avons un examen""",
    "it": """Il treno oggi arriva con dieci minuti di ritardo|Ieri abbiamo aspettato a lungo l'autobus|Mi passi il sale per
favore|I bambini giocano in giardino dopo la scuola|Ho dimenticato la mia chiave a casa|Domani il tempo sarà di nuovo
migliore|Lei legge un libro ogni sera prima di dormire|Nel fine settimana andiamo dai miei nonni|Il panificio apre già
alle sei|Mio fratello studia il pianoforte da due anni|La finestra è aperta e c'è corrente|Dove trovo il bancomat più
vicino|La fattura non è ancora pagata|Lavora in un piccolo ufficio vicino al fiume|D'inverno qui fa buio molto presto|La
strada è chiusa per lavori|Quanto costa un biglietto per il concerto|Bevo il caffè senza zucchero|Il cane dorme sotto il
tavolo|La prossima settimana abbiamo un esame""",
}
LANGUAGES = sorted(SENTENCES)
# Every fifth sentence is held out, the same ones in each language: they mean the same.
HELD_OUT = 5
SAMPLES = ["Where is the station?", "Wo ist der Bahnhof?", "Dove si trova la stazione?"]


@dataclass(frozen=True)
class Model:
    """The character n-grams that count, and what each weighs for each language."""

    grams: list[str]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, texts: list[str]) -> NDArray[np.float32]:
        """What the model has to answer, computed without ONNX Runtime."""
        scores = counted(texts, self.grams) @ self.weights.T + self.bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def grams_of(text: str) -> list[str]:
    """Single characters, pairs and triples of the text, as they are written.

    ONNX has an operator for lower case, but it needs a locale that small machines do not have.
    """
    return [text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1)]


def counted(texts: list[str], grams: list[str]) -> NDArray[np.float32]:
    place = {gram: index for index, gram in enumerate(grams)}
    counts = np.zeros((len(texts), len(grams)), np.float32)
    for row, text in enumerate(texts):
        for gram in grams_of(text):
            if gram in place:
                counts[row, place[gram]] += 1
    return counts


def corpus() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Sentences with their languages, for training and for testing."""
    train, test = [], []
    for label, language in enumerate(LANGUAGES):
        sentences = [" ".join(text.split()) for text in SENTENCES[language].split("|")]
        for index, sentence in enumerate(sentences):
            (test if index % HELD_OUT == 0 else train).append((sentence, label))
    return train, test


def fit(train: list[tuple[str, int]]) -> Model:
    totals: dict[str, int] = {}
    for text, _ in train:
        for gram in grams_of(text):
            totals[gram] = totals.get(gram, 0) + 1
    common = sorted(totals, key=lambda gram: (-totals[gram], gram))[:GRAMS]
    grams = sorted(common, key=lambda gram: (len(gram), gram))
    features = counted([text for text, _ in train], grams)
    with threadpool_limits(limits=1):  # or the number of cores decides the order of additions
        model = LogisticRegression(max_iter=2000, random_state=SEED)
        model.fit(features, [label for _, label in train])
    return Model(grams, model.coef_.astype(np.float32), model.intercept_.astype(np.float32))


def to_onnx(model: Model) -> onnx.ModelProto:
    """text -> characters -> n-grams -> scores -> label, probabilities."""
    pool = [character for gram in model.grams for character in gram]
    lengths = [sum(len(gram) == n for gram in model.grams) for n in (1, 2, 3)]
    starts = [0, lengths[0], lengths[0] + 2 * lengths[1]]
    nodes = [
        helper.make_node(
            "Tokenizer",
            ["text"],
            ["characters"],
            domain="com.microsoft",
            mark=0,
            mincharnum=1,
            pad_value="\x03",
            tokenexp="(?s).",
        ),
        helper.make_node(
            "TfIdfVectorizer",
            ["characters"],
            ["counts"],
            mode="TF",
            min_gram_length=1,
            max_gram_length=3,
            max_skip_count=0,
            ngram_counts=starts,
            ngram_indexes=list(range(len(model.grams))),
            pool_strings=pool,
        ),
        helper.make_node("Gemm", ["counts", "weights", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["languages", "index"], ["label"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "language",
        [info("text", TensorProto.STRING, ["batch"])],
        [
            info("label", TensorProto.STRING, ["batch"]),
            info("probabilities", TensorProto.FLOAT, ["batch", len(LANGUAGES)]),
        ],
        [
            numpy_helper.from_array(model.weights, "weights"),
            numpy_helper.from_array(model.bias, "bias"),
            numpy_helper.from_array(np.array(LANGUAGES, object), "languages"),
        ],
    )
    return helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        producer_name="onward",
        doc_string="The language of a sentence: " + ", ".join(LANGUAGES) + ".",
    )


def request(texts: list[str]) -> dict:
    """A request body of the Open Inference Protocol."""
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return {"inputs": [tensor]}


def dump(path: Path, body: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(model: Model) -> None:
    path = MODEL / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_onnx(model).SerializeToString(deterministic=True))
    dump(MODEL / "samples" / "three.json", request(SAMPLES))
    shares = model.probabilities(SAMPLES)
    sample = request(SAMPLES)
    labels = [LANGUAGES[index] for index in shares.argmax(axis=1)]
    sample["outputs"] = [
        {"name": "label", "shape": [len(SAMPLES)], "datatype": "BYTES", "data": labels},
        {"name": "probabilities", "shape": list(shares.shape), "datatype": "FP32", "data": shares.tolist()},
    ]
    dump(MODEL / "golden" / "three.json", sample)


def verify(model: Model, test: list[tuple[str, int]]) -> None:
    """Fails unless the written model answers as the trained one; prints what the README tells."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
    import onnxruntime

    path = MODEL / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    run = lambda texts: session.run(["label", "probabilities"], {"text": np.array(texts, object)})  # noqa: E731
    texts = [text for text, _ in test] + SAMPLES
    labels, shares = run(texts)
    np.testing.assert_allclose(shares, model.probabilities(texts), rtol=1e-3, atol=1e-5)
    right = [labels[i] == LANGUAGES[label] for i, (_, label) in enumerate(test)]
    print(f"{100 * sum(right) / len(right):.1f} % of {len(right)} sentences, {path.stat().st_size} bytes")
    print("samples:", list(labels[len(test) :]), "an empty string:", run([""])[0][0])


def main() -> None:
    train, test = corpus()
    model = fit(train)
    write(model)
    verify(model, test)


if __name__ == "__main__":
    main()
