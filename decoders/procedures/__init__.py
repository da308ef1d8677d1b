"""Published methods that call the model several times per answer. Adding one adds a line to NAMES."""

NAMES = {
    "mvp": "mvp:MVP",
    "vicrop": "vicrop:ViCrop",
    "guided": "guided:Guided",
    "flip": "policies:Flip",
    "drop": "policies:Drop",
    "reask": "policies:Reask",
}
