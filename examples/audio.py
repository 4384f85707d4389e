"""The notes of a melody, separated: a power spectrogram is a sum of notes, each with a spectrum of its own.

    python examples/audio.py [--seconds 8]

A melody of five notes with overtones, loud ones and quiet ones, each of which dies away under the next, is played with
some noise. Itakura and Saito's divergence (β = 0) doesn't depend on loudness and hears them all; the squared error
spends its components on the loud ones. A few seconds on two cores, most of them compiling.
"""

from __future__ import annotations

import argparse

import numpy as np

from face_jax.sklearn import NMF

NOTES = {"C4": 261.63, "E4": 329.63, "G4": 392.00, "A4": 440.00, "C5": 523.25}
LOUD = {"C4": 1.0, "E4": 0.5, "G4": 0.25, "A4": 0.12, "C5": 0.06}
MELODY = "C4 E4 G4 C5 A4 G4 E4 C4 A4 C5"
RATE, WINDOW = 8000, 1024
HIGHEST, SILENCE = 200, 0.1  # bins of frequency that are looked at, and a power below what can be heard
SPECTRA = np.arange(1, 5) ** -2.0  # of overtones


def melody(seconds: float, seed: int = 0) -> np.ndarray:
    """The sound."""
    drawn = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    played = MELODY.split()
    each = seconds / len(played)
    sound = drawn.normal(0, 1e-4, len(time))
    for number, name in enumerate(played):
        since = time - number * each
        # A stroke that dies away, also under the note behind it.
        loudness = LOUD[name] * np.exp(-3 * since / each) * (since >= 0)
        for part, strength in enumerate(SPECTRA, start=1):
            sound += strength * loudness * np.sin(2 * np.pi * part * NOTES[name] * time)
    return sound


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """Power by time and frequency."""
    starts = range(0, len(sound) - WINDOW, WINDOW // 4)
    frames = np.stack([sound[at : at + WINDOW] * np.hanning(WINDOW) for at in starts])
    return np.abs(np.fft.rfft(frames)[:, :HIGHEST]) ** 2 + SILENCE


def main() -> None:
    """Separate the notes, and say which were heard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6)
    power = spectrogram(melody(parser.parse_args().seconds))
    print(f"A melody of {len(NOTES)} notes: {power.shape[0]} moments × {power.shape[1]} frequencies")
    for loss in ("itakura-saito", "frobenius"):
        model = NMF(len(NOTES), beta_loss=loss, random_state=0, tol=1e-3)
        used = model.fit_transform(power)
        pitches = model.components_.argmax(axis=1) * RATE / WINDOW
        print(f"\nbeta_loss={loss!r}: components at {', '.join(f'{pitch:.0f}' for pitch in sorted(pitches))} Hz")
        for name, pitch in NOTES.items():
            nearest = int(np.abs(pitches - pitch).argmin())
            right = abs(pitches[nearest] - pitch) <= RATE / WINDOW
            loudest = used[:, nearest].argmax() * WINDOW / 4 / RATE
            words = f"heard, loudest at {loudest:.1f} s" if right else "not heard"
            print(f"  {name} ({pitch:.0f} Hz, {20 * np.log10(LOUD[name]):+.0f} dB): {words}")


if __name__ == "__main__":
    main()
